"""Compile the kernel for CUDA without a device, and print what came of it: one JSON object per line.

Triton must not interpret in this process, so that it is one of its own.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from nissa.kernels import device
from nissa.kernels import triton as host
from nissa.kernels.moments import BucketRange, Layout, Thresholds

LAYOUTS = {
    "buckets": Layout(),
    "moments": Layout(None),
    "wide": Layout(BucketRange(3, -160, 16)),
    "coarse": Layout(BucketRange(-2)),
    "many": Layout(BucketRange(8)),
}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def scan(capability: int, dtype: torch.dtype, layout: Layout, *, scaled: bool) -> Any:
    constants, _ = host.options(dtype, layout, Thresholds(), scaled=scaled)
    bits = "i64" if constants["WIDE"] else "i32"
    pointers = {
        "row_of": "*i32",
        "rows": "*i64",
        "places": "*i64",
        "scale": "*fp32",
        "cells": f"*{bits}",
        "octaves": "*i32",
    }
    limits = dict.fromkeys(["vanishing", "exploding", "low", "high", "lowest"], bits)
    results = {"parts": "*fp64", "counts": "*i64"}
    return compiled(capability, device.scan, {**pointers, **results, **limits}, constants)


def pack(capability: int, layout: Layout) -> Any:
    constants = {"SIZE": layout.buckets.size if layout.buckets else 0, "WIDTH": layout.width}
    pointers = {"rows": "*i64", "parts": "*fp64", "counts": "*i64", "packed": "*i64"}
    return compiled(capability, device.pack, pointers, constants)


def compiled(capability: int, kernel: Any, types: dict[str, str], constants: dict[str, Any]) -> Any:
    names = kernel.arg_names
    types = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if types[name].startswith("*")}
    source = ASTSource(kernel, types, {(names.index(name),): value for name, value in constants.items()}, aligned)
    return triton.compile(source, GPUTarget("cuda", capability, 32), {"num_warps": host._WARPS, **host._OPTIONS})


def resources(cubin: bytes, folder: Path) -> dict[str, int]:
    """What a thread or program takes, as the vendor's tool reads it."""
    (folder / "cubin").write_bytes(cubin)
    shown = subprocess.run(
        [TOOLS / "cuobjdump", "--dump-resource-usage", folder / "cubin"], capture_output=True, text=True, check=True
    ).stdout
    return {name.lower(): int(value) for name, value in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", shown)}


def told(name: str, kernel: Any) -> None:
    ptx = kernel.asm["ptx"]
    found = {
        "name": name,
        "together": [int(bits) * int(n) // 8 for n, bits in re.findall(r"ld\.global\.v(\d)\.b(\d+)", ptx)],
        "atomics": len(re.findall(r"atom\S*\.shared\S*\.add", ptx)),
        **resources(kernel.asm["cubin"], Path(sys.argv[1])),
        "shared": kernel.metadata.shared,
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    for dtype in host._KINDS:
        told(f"90 buckets {dtype}", scan(90, dtype, LAYOUTS["buckets"], scaled=False))
        told(f"90 moments {dtype}", scan(90, dtype, LAYOUTS["moments"], scaled=False))
    for name in ("wide", "coarse", "many"):
        told(f"90 {name}", scan(90, torch.float32, LAYOUTS[name], scaled=False))
    told("90 scaled", scan(90, torch.float16, LAYOUTS["buckets"], scaled=True))
    told("80 buckets", scan(80, torch.float32, LAYOUTS["buckets"], scaled=False))
    told("80 moments", scan(80, torch.bfloat16, LAYOUTS["moments"], scaled=False))
    for capability in (80, 90):
        told(f"{capability} pack", pack(capability, LAYOUTS["buckets"]))
    told("90 pack moments", pack(90, LAYOUTS["moments"]))
