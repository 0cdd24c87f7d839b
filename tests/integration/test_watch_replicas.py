"""The argument ``replicas`` of ``watch()``, and a run without other ranks."""

import threading
from pathlib import Path

import pytest
import torch
from torch import distributed

import nissa
from nissa.hub.measurements import ReplicasCompared
from tests.toys import Toy


@pytest.mark.parametrize("wrong", ["all", [0, 1], 2])
def test_what_is_no_group_is_refused_with_the_fix_and_nothing_is_changed(wrong: object) -> None:
    toy = Toy()
    with nissa.start("standard", console__enabled=False) as run:
        with pytest.raises(nissa.WatchError, match="pass a process group, a device mesh of one dimension, None"):
            run.watch(toy.model, toy.optimizer, replicas=wrong)  # type: ignore[call-overload]  # on purpose
        assert not toy.optimizer._optimizer_step_pre_hooks
        run.watch(toy.model, toy.optimizer)


def test_optimizers_that_step_in_the_backward_pass_are_refused() -> None:
    model = torch.nn.Linear(2, 2)
    several = [torch.optim.SGD([each], lr=0.1) for each in model.parameters()]
    with (
        nissa.start("standard", console__enabled=False) as run,
        pytest.raises(nissa.WatchError, match="leave out replicas="),
    ):
        run.watch(model, several, replicas=object())  # type: ignore[call-overload]  # on purpose


def test_a_process_without_other_ranks_compares_nothing_and_starts_no_thread(tmp_path: Path) -> None:
    store = distributed.FileStore(str(tmp_path / "store"), 1)  # type: ignore[attr-defined]  # not marked as exported
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    memory, toy = nissa.MemoryBackend(), Toy()
    try:
        with nissa.start("diagnostic", backends=[memory], console__enabled=False) as run:
            run.watch(toy.model, toy.optimizer)
            for _ in range(3):
                toy.step(run)
            run.flush()
            assert not any(thread.name == "nissa-replicas" for thread in threading.enumerate())
    finally:
        distributed.destroy_process_group()
    assert not any(isinstance(each, ReplicasCompared) for each in memory.measurements)
