"""Every name of `nissa.torch_compat` does what its docstring states, with the release of torch that is installed."""

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nissa import torch_compat as compat
from nissa.gradients.phases import PhaseTimer
from nissa.hub.error_boundary import ErrorBoundary


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def test_foreach_functions_compute_what_their_names_say() -> None:
    left, right = [torch.tensor([3.0, 4.0]), torch.tensor([-1.0])], [torch.tensor([1.0, 1.0]), torch.tensor([2.0])]
    assert [each.item() for each in compat.foreach_norm(left)] == [5.0, 1.0]
    assert [each.tolist() for each in compat.foreach_add(left, right)] == [[4.0, 5.0], [1.0]]
    compat.foreach_sub_(left, right)
    assert [each.tolist() for each in left] == [[2.0, 3.0], [-3.0]]
    compat.foreach_clamp_min_(left, 2.5)
    assert [each.tolist() for each in left] == [[2.5, 3.0], [2.5]]
    compat.foreach_div_(left, 2.0)
    assert [each.tolist() for each in left] == [[1.25, 1.5], [1.25]]
    compat.foreach_copy_(left, right)
    assert [each.tolist() for each in left] == [[1.0, 1.0], [2.0]]


def test_the_hooks_of_an_optimizer_are_returned_in_their_order() -> None:
    optimizer = optimizer_of(nn.Linear(1, 1))
    assert compat.runs_step_hooks(optimizer)
    assert [*compat.step_pre_hooks(optimizer).values()] == []

    def first(*_: object) -> None: ...

    def second(*_: object) -> None: ...

    optimizer.register_step_pre_hook(first)
    optimizer.register_step_pre_hook(second)
    assert [*compat.step_pre_hooks(optimizer).values()] == [first, second]


def test_an_optimizer_that_its_base_class_has_not_initialised_runs_no_hooks() -> None:
    class Bare(torch.optim.Optimizer):
        def __init__(self) -> None:
            pass

    assert not compat.runs_step_hooks(Bare())
    assert [*compat.step_pre_hooks(Bare()).values()] == []


def test_the_state_of_a_scaler_is_read() -> None:
    model = nn.Linear(2, 1)
    optimizer, scaler = optimizer_of(model), torch.amp.GradScaler("cpu", init_scale=8.0)
    assert compat.loss_scale(scaler) is None
    assert not compat.is_unscaled(scaler, optimizer)
    scaler.scale(model(torch.tensor([[torch.inf, 1.0]])).sum()).backward()
    scale = compat.loss_scale(scaler)
    assert scale is not None
    assert scale.item() == 8.0
    scaler.unscale_(optimizer)
    assert compat.is_unscaled(scaler, optimizer)
    assert [found.item() for found in compat.found_infs(scaler, optimizer)] == [1.0]
    scaler.step(optimizer)
    scaler.update()
    assert not compat.is_unscaled(scaler, optimizer)
    assert compat.found_infs(scaler, optimizer) == []


def test_what_is_no_scaler_has_no_state() -> None:
    optimizer = optimizer_of(nn.Linear(1, 1))
    assert compat.loss_scale(object()) is None
    assert compat.found_infs(object(), optimizer) == []
    assert not compat.is_unscaled(object(), optimizer)


def test_the_parts_of_a_module_are_found() -> None:
    norm = nn.BatchNorm1d(2)
    assert compat.buffers_of(norm).keys() == {"running_mean", "running_var", "num_batches_tracked"}
    assert compat.buffers_of(norm)["running_mean"] is norm.running_mean
    assert compat.is_initialised(norm)
    assert not compat.is_initialised(nn.Linear.__new__(nn.Linear))


def test_a_compiled_model_is_recognised_and_unwrapped() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    compiled: Any = torch.compile(model, backend="eager")
    assert compat.uncompiled(compiled) is model
    assert compat.uncompiled(model) is model
    assert compat.contains_compiled(nn.Sequential(compiled))
    assert not compat.contains_compiled(model)
    assert not compat.is_fsdp1(model)


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "global"])
def test_hooks_of_the_forward_pass_are_noticed(kind: str) -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    assert not compat.has_forward_hooks(model)

    def hook(*_: object) -> None: ...

    register: Any = {
        "forward": model[0].register_forward_hook,
        "forward_pre": model[0].register_forward_pre_hook,
        "global": nn.modules.module.register_module_forward_hook,
    }[kind]
    handle = register(hook)
    assert compat.has_forward_hooks(model)
    handle.remove()
    assert not compat.has_forward_hooks(copy.deepcopy(model))


def test_hooks_of_ours_do_not_count() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    release = PhaseTimer(ErrorBoundary().guard("test")).follow(model)
    assert model._forward_hooks
    assert not compat.has_forward_hooks(model)
    assert not compat.has_forward_hooks(copy.deepcopy(model))
    model.register_forward_hook(lambda *_: None)
    assert compat.has_forward_hooks(model)
    release()


def test_a_function_is_called_at_the_end_of_a_backward_pass() -> None:
    seen: list[str] = []
    leaf = torch.ones(2, requires_grad=True)
    leaf.register_post_accumulate_grad_hook(lambda _: seen.append("gradient"))  # type: ignore[no-untyped-call]
    product = leaf * 2
    product.register_hook(lambda _: seen.append(f"queued {compat.after_backward(lambda: seen.append('end'))}"))  # type: ignore[no-untyped-call]
    product.sum().backward()  # type: ignore[no-untyped-call]
    assert seen == ["queued True", "gradient", "end"]


def test_the_store_and_the_devices_of_a_process_group_are_found(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        compat.default_store().set("key", "value")
        assert compat.default_store().get("key") == b"value"
        assert "cpu" in compat.device_types(dist.group.WORLD)
    finally:
        dist.destroy_process_group()
    assert compat.device_types(object()) == ["cpu"]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_iterator_of_a_data_loader_knows_its_dataset(workers: int) -> None:
    data = TensorDataset(torch.ones(2, 1))
    iterator = iter(DataLoader(data, num_workers=workers))
    assert isinstance(iterator, compat.BATCH_ITERATOR)
    assert compat.dataset_of(iterator) is data
    assert compat.dataset_of(object()) is None


def test_a_store_has_a_further_connection_with_a_timeout_of_its_own() -> None:
    kind: Any = dist.TCPStore  # type: ignore[attr-defined]  # torch does not mark it as exported
    server = kind("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store = dist.distributed_c10d.PrefixStore("prefix", server)
    store.set("key", "value")
    own = compat.own_connection(store, 1.0)
    assert own.get("key") == b"value"
    waits = threading.Thread(target=lambda: store.get("end"))
    waits.start()  # occupies the connection of the other
    assert own.check(["key"])
    own.set("end", "now")
    waits.join(60)
    assert not waits.is_alive()
    with pytest.raises(RuntimeError, match=r"(?i)time"):
        own.get("missing")
    without = object()
    assert compat.own_connection(without, 1.0) is without


def test_the_wrapper_around_a_forward_pass_is_found(tmp_path: Path) -> None:
    from torch.distributed._composable.replicate import replicate  # noqa: PLC0415 - some releases lack it
    from torch.distributed.algorithms.join import Join  # noqa: PLC0415 - likewise

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        inner, seen = nn.Linear(1, 1), []
        inner.register_forward_pre_hook(lambda *_: seen.append(compat.running_wrapper()))
        wrapper = nn.parallel.DistributedDataParallel(inner)
        wrapper(torch.ones(1, 1))
        inner(torch.ones(1, 1))
        assert seen == [wrapper, None]
        assert compat.running_wrapper() is None
        before = compat.join_state(wrapper)
        with Join([wrapper]):
            assert compat.join_state(wrapper) is not before
        assert compat.join_state(nn.Linear(1, 1)) is None
        composed = replicate(nn.Linear(1, 1))
        composed(torch.ones(1, 1))
        assert compat.replicate_group(composed) is dist.group.WORLD
        assert compat.replicate_group(inner) is None
    finally:
        dist.destroy_process_group()
