"""Command line of both benchmarks of steps."""

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.facts import RESULTS
from benchmarks.steps.models import MODELS


def parser() -> argparse.ArgumentParser:
    """Return the parser of the common options: training, models and output folder."""
    found = argparse.ArgumentParser()
    found.add_argument("--threads", type=int, default=torch.get_num_threads())
    found.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    found.add_argument("--batches", type=int, default=1, help="of which a step adds up gradients")
    found.add_argument("--model", choices=tuple(MODELS), action="append")
    found.add_argument("--into", type=Path, default=RESULTS)
    return found


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the training from the arguments."""
    return {"threads": given.threads, "device": given.device, "batches": given.batches}
