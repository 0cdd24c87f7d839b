"""Cost of digests of weights, as a ratio to an optimizer step and to weight norms in the same process.

``python -m benchmarks.replicas`` writes ``benchmarks/results/replicas.csv``. Each round times the digests, an AdamW step and the norms
of the same weights one after the other, so that a busy machine slows all of them down; ratios are taken within a round.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from time import thread_time
from typing import Final

import torch
from torch import nn

from benchmarks.facts import COLUMNS, RESULTS, facts, write
from benchmarks.medians import median
from benchmarks.steps.rows import interval
from nissa.kernels.digest import digests
from nissa.kernels.squares import squares

FIELDS: Final = (
    "parameters",
    "elements",
    "dtype",
    "digest_ms",
    "digest_ms_low",
    "digest_ms_high",
    "of_step",
    "of_step_low",
    "of_step_high",
    "of_norms",
    "of_norms_low",
    "of_norms_high",
    *COLUMNS,
)
NETWORKS: Final = {"small": (100, 32), "large": (24, 768)}
"""Number of linear layers, and their width."""

_WARM: Final = 3


def _seconds(call: Callable[[], object], repeat: int) -> float:
    began = thread_time()
    for _ in range(repeat):
        call()
    return (thread_time() - began) / repeat


def measure(layers: int, width: int, dtype: torch.dtype, rounds: int) -> dict[str, list[float]]:
    """Return milliseconds of the digests, and their ratios to an optimizer step and to weight norms, of each round."""
    network = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers))).to(dtype)
    weights = [each.detach() for each in network.parameters()]
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)
    repeat = max(1, 2_000_000 // sum(each.numel() for each in weights))
    calls: tuple[Callable[[], object], ...] = (lambda: digests(weights), optimizer.step, lambda: squares(weights))
    for call in calls:
        _seconds(call, _WARM)
    found: dict[str, list[float]] = {"digest_ms": [], "of_step": [], "of_norms": []}
    for _ in range(rounds):
        digest, step, norms = (_seconds(call, repeat) for call in calls)
        found["digest_ms"].append(digest * 1e3)
        found["of_step"].append(digest / step)
        found["of_norms"].append(digest / norms)
    return found


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--into", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    machine, rows = facts(1), []
    for layers, width in NETWORKS.values():
        for dtype in (torch.float32, torch.bfloat16):
            found = measure(layers, width, dtype, arguments.rounds)
            row: dict[str, object] = {
                "parameters": 2 * layers,
                "elements": layers * (width * width + width),
                "dtype": str(dtype).removeprefix("torch."),
                **interval("digest_ms", median(found["digest_ms"]), ".3f"),
                **interval("of_step", median(found["of_step"]), ".3f"),
                **interval("of_norms", median(found["of_norms"]), ".2f"),
                **machine,
            }
            rows.append(row)
            print(
                f"{row['elements']:>12,} {row['dtype']:<9} {row['digest_ms']} ms; {row['of_step']} of an AdamW step; "
                f"{row['of_norms']} of weight norms"
            )
    write(arguments.into / "replicas.csv", FIELDS, rows)


if __name__ == "__main__":
    main()
