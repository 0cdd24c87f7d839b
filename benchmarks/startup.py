"""Cost of a run apart from its steps: import, start, exit, memory, bytes.

``python -m benchmarks.startup`` writes ``benchmarks/results/startup.csv``. Everything is measured in processes of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.facts import COLUMNS, RESULTS, facts, write
from benchmarks.steps.statistics import Estimate, mean

FIELDS = ("what", "value", "low", "high", "unit", "repetitions", "about", *COLUMNS)
_TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"

_COMMON = """
import json, logging, os, resource, sys, time
import torch
import nissa
logging.getLogger("nissa").setLevel(logging.CRITICAL)
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

def training(tensors):
    model = torch.nn.ParameterList(torch.randn(64, 64) for _ in range(tensors))
    for each in model:
        each.grad = torch.randn_like(each)
    return model, torch.optim.SGD(model.parameters(), lr=0.0)

def start(profile="diagnostic", **settings):
    return nissa.start(profile, console={"enabled": False}, files={"directory": sys.argv[1]}, **settings)
"""

_START = """
began = time.perf_counter()
run = start("standard")
started = time.perf_counter()
model, optimizer = training(150)
watching = time.perf_counter()
run.watch(model, optimizer)
watched = time.perf_counter()
optimizer.step()
stepped = time.perf_counter()
for _ in range(50):
    optimizer.step()
ending = time.perf_counter()
run.close()
print(json.dumps({
    "start": started - began, "watch": watched - watching, "first": stepped - watched, "exit": time.perf_counter() - ending
}))
"""

_MEMORY = """
model, optimizer = training(int(sys.argv[2]))
with start(gradients={"max_parameters": 1000}) as run:
    run.watch(model, optimizer)
    before = resident()
    for _ in range(20):
        optimizer.step()
    run.flush()
    after = resident()
print(json.dumps({"before": before, "after": after}))
"""

_BYTES = """
model, optimizer = training(150)
with start("diagnostic") as run:
    run.watch(model, optimizer)
    for _ in range(int(sys.argv[2])):
        optimizer.step()
"""


def script(text: str, *arguments: object, **environment: str) -> str:
    """Run a script in a new process; return its output."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "NISSA_"))}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", text, folder, *map(str, arguments)]
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=True, env=clean | environment, timeout=120
        )
        return done.stdout


def seconds(code: str) -> float:
    """Return the duration of a statement in a new process, in seconds."""
    return float(script(_TIMED.format(code)))


def imports(runs: int) -> dict[str, list[float]]:
    """Return the milliseconds of each import, with files already in the page cache."""
    statements = {
        "import torch": "import torch",
        "import nissa": "import nissa",
        "import nissa.run, after torch": "import torch; t = time.perf_counter(); import nissa.run.run",
    }
    for code in statements.values():
        seconds(code)
    return {what: [seconds(code) * 1000 for _ in range(runs)] for what, code in statements.items()}


def starts(runs: int, **environment: str) -> dict[str, list[float]]:
    """Return the milliseconds of the phases at the start and end of a run."""
    script(_COMMON + _START, **environment)
    found = [json.loads(script(_COMMON + _START, **environment)) for _ in range(runs)]
    return {name: [each[name] * 1000 for each in found] for name in found[0]}


def memory(runs: int) -> list[float]:
    """Return MiB per 1,000 streams: the memory of 600 additional tensors divided by their streams."""

    def grown(tensors: int) -> float:
        memory = json.loads(script(_COMMON + _MEMORY, tensors))
        return float(memory["after"]) - float(memory["before"])

    return [(grown(700) - grown(100)) / (600 * streams_per_tensor()) * 1000 for _ in range(runs)]


def streams_per_tensor() -> int:
    """Return the number of streams that the profile ``diagnostic`` exports per parameter."""
    from nissa.config import TelemetryConfig  # noqa: PLC0415 - it loads what is to be measured

    gradients = TelemetryConfig.from_profile("diagnostic").gradients
    return len(gradients.statistics) + len(gradients.quantiles) + bool(gradients.weight_norms) + 2


class _Sink(BaseHTTPRequestHandler):
    """Collector that only counts bytes."""

    received: dict[str, int]

    def do_POST(self) -> None:
        """Count a request."""
        length = int(self.headers["Content-Length"])
        self.rfile.read(length)
        self.received[self.path] = self.received.get(self.path, 0) + length
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Suppress the access log."""


def wire(samples: int, compression: str) -> int:
    """Return the bytes of the metrics of a number of samples of 150 tensors, as OTLP over HTTP."""
    received: dict[str, int] = {}
    handler = type("Sink", (_Sink,), {"received": received})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
        "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
    }
    script(_COMMON + _BYTES, samples, **environment)
    server.shutdown()
    server.server_close()
    return received["/v1/metrics"]


def files(samples: int) -> int:
    """Return the bytes of ``metrics.jsonl`` for the same samples."""
    print_size = "\nprint((run.directory / 'metrics.jsonl').stat().st_size)"
    return int(script(_COMMON + _BYTES + print_size, samples))


def per_sample(size: Callable[[int], int]) -> float:
    """Return the bytes that one more sample adds."""
    return (size(21) - size(1)) / 20


def line(what: str, values: list[float], unit: str, about: str = "", form: str = ".1f") -> dict[str, Any]:
    """Return a line of the results."""
    estimate = mean(values) if len(values) > 1 else Estimate(*values * 3)
    numbers = {name: format(getattr(estimate, name), form) for name in ("value", "low", "high")}
    print(what, numbers["value"], unit, file=sys.stderr, flush=True)
    return {"what": what, **numbers, "unit": unit, "repetitions": len(values), "about": about}


def lines(runs: int) -> Iterator[dict[str, Any]]:
    """Yield the lines of the results."""
    for what, values in imports(runs).items():
        yield line(what, values, "ms")
    names = {
        "start": (
            "nissa.start()",
            "first run of a process, imports included; torch is loaded",
        ),
        "watch": ("run.watch() of 150 tensors", ""),
        "first": ("first sampled step", "loads the compiled kernel"),
        "exit": ("end of a run, to files", "after 51 steps; includes the last export"),
    }
    for name, values in starts(runs).items():
        yield line(names[name][0], values, "ms", names[name][1])
    dead = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp"}
    dead["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    yield line(
        "end of a run, collector unreachable",
        starts(runs, **dead)["exit"],
        "ms",
        "bounded by limits.exit_timeout_seconds",
    )
    about = f"{streams_per_tensor()} streams per tensor, after 20 samples"
    yield line("resident memory per 1,000 streams", memory(runs), "MiB", about, ".2f")
    ways: dict[str, Callable[[int], int]] = {
        "metrics.jsonl": files,
        "OTLP over HTTP": lambda samples: wire(samples, "none"),
        "OTLP over HTTP, gzip": lambda samples: wire(samples, "gzip"),
    }
    for what, size in ways.items():
        yield line(
            f"an export of 1 sample, 150 tensors, {what}",
            [size(1) / 1024],
            "KiB",
            "profile diagnostic; includes the run's other metrics",
        )
        yield line(f"each further sample, {what}", [per_sample(size) / 1024], "KiB")


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5, help="of each process")
    parser.add_argument("--into", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    began = perf_counter()
    common = facts(1)
    found: list[dict[str, Any]] = []
    for each in lines(arguments.runs):
        found.append({**each, **common})
        write(arguments.into / "startup.csv", FIELDS, found)
    print(f"{perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
