"""One of two processes that measure together: ``python -m tests.distributed.measuring FOLDER``."""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from nissa import ValidationMeter
from nissa.config import SharpnessConfig
from nissa.diagnostics.sharpness import SharpnessProbe

CONFIG = SharpnessConfig(enabled=True, every_n_epochs=1, budget_milliseconds=60_000)
TARGETS = torch.tensor([0, 0, 1, 2, 2, 2, -100])
PREDICTED = torch.tensor([0, 1, 1, 2, 0, 2, 0])


def counted(rank: int) -> dict[str, Any]:
    """Return what both find of a validation of which each has a part, and how many collectives that took."""
    parts = slice(0, 3), slice(3, 7)
    meter = ValidationMeter(4, ignore_index=-100)
    meter.update(PREDICTED[parts[rank]], TARGETS[parts[rank]], float(rank + 1))
    calls = []
    kept = distributed.all_reduce

    def counting(*given: Any, **named: Any) -> Any:
        calls.append(given)
        return kept(*given, **named)

    distributed.all_reduce = counting
    try:
        together = meter.result(sync=True)
    finally:
        distributed.all_reduce = kept
    lonely = ValidationMeter(2)
    if rank == 0:
        lonely.update(torch.tensor([0, 1]), torch.tensor([0, 0]))
    return {
        "accuracy": together.accuracy,
        "loss": together.loss,
        "confusion": together.confusion,
        "ignored": together.ignored,
        "calls": len(calls),
        "alone": meter.result().examples,
        "lonely": lonely.result(sync=True).accuracy,
    }


def replicated(rank: int) -> dict[str, Any]:
    """Return what each finds of a replicated model on a batch of its own, which takes evaluations of its own number."""
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))
    optimizer = SGD(model.parameters(), lr=0.1)
    x = torch.randn(8, 3) * (1 + 30 * rank)
    before = [each.clone() for each in model.state_dict().values()]
    measured = SharpnessProbe(CONFIG).measure(model, optimizer, lambda: model(x).square().mean())
    torch.autograd.backward(model(x).square().mean())
    optimizer.step()
    (weight,) = [each.sum().item() for name, each in model.named_parameters() if name == "module.0.weight"]
    assert measured is not None
    return {
        "values": measured.values,
        "evaluations": measured.evaluations,
        "weight": weight,
        "moved": not all(one.equal(other) for one, other in zip(before, model.state_dict().values(), strict=True)),
    }


def sharded() -> dict[str, Any]:
    """Return what is found of a sharded model."""
    model = nn.Linear(4, 4)
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    optimizer = SGD(model.parameters(), lr=0.1)
    found = SharpnessProbe(CONFIG).measure(model, optimizer, lambda: model(torch.ones(2, 4)).sum())
    return {"measured": found is not None}


def main(folder: Path) -> None:
    """Find all, and write it."""
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=120))
    found = {"counted": counted(rank), "replicated": replicated(rank), "sharded": sharded()}
    (folder / f"rank{rank}.json").write_text(json.dumps(found))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
