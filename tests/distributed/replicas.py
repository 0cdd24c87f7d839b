"""Trainings on ranks that are compared with each other: faults that make replicas diverge, and programs that resemble them.

``play(rank, folder)`` runs the scenarios of a number of ranks one after the other, and writes what each found.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import torch
from torch import Tensor, distributed, nn
from torch.distributed.algorithms.join import Join
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel, parallelize_module
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import nissa
from nissa.events import EventType
from nissa.hub.measurements import ReplicasCompared
from nissa.torch_compat import default_store

STEPS: Final = 12
CLASSES: Final = 4
BROKEN: Final = 5
"""Step from which a fault acts."""


@dataclass
class Training:
    """A training of this rank.

    Args:
        call: What the loop calls; the watched model if None.
        batches: Seed of the data; ranks differ.
        watch: Arguments of ``watch()``.
        settings: Arguments of ``start()``.
        before_step: Called before each optimizer step with its number; False skips the step.
        after_step: Called after each.
        patience: Longest time to wait for comparisons at the end, in seconds; short where some are never complete.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    call: Callable[[Tensor], Tensor] | None = None
    batches: int = 0
    watch: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    before_step: Callable[[int], object] = lambda _: None
    after_step: Callable[[int], object] = lambda _: None
    steps: int = STEPS
    patience: float = 30.0


def rank() -> int:
    return distributed.get_rank()


def net(*, norm: bool = False, seed: int = 0) -> nn.Sequential:
    """Return the same network on every rank."""
    torch.manual_seed(seed)
    between: list[nn.Module] = [nn.BatchNorm1d(16)] if norm else []
    return nn.Sequential(nn.Linear(8, 16), *between, nn.ReLU(), nn.Linear(16, CLASSES))


def wrapped(network: nn.Module | None = None, **named: Any) -> DistributedDataParallel:
    return DistributedDataParallel(net() if network is None else network, **named)


def gradient(parameter: Tensor) -> Tensor:
    """Return the gradient of a parameter, which exists."""
    assert parameter.grad is not None
    return parameter.grad


def new_group() -> distributed.ProcessGroup:
    """Return a group of all ranks."""
    group = distributed.new_group(list(range(distributed.get_world_size())))
    assert isinstance(group, distributed.ProcessGroup)
    return group


def adam(model: nn.Module, lr: float = 0.01, **named: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=lr, **named)


def trained(training: Training, loop: Callable[[Training, Any], None] | None = None) -> dict[str, Any]:
    """Train under Nissa, and return what it found."""
    memory = nissa.MemoryBackend()
    hub = nissa.get_hub()
    settings = {"gradients__every_n_steps": 2, "replicas__every_n_samples": 1} | training.settings
    with nissa.start("standard", backends=[memory], console__enabled=False, strict=True, **settings) as run:
        distributed.barrier()  # trainings without a wrapper wait for nothing else
        run.watch(training.model, training.optimizer, **training.watch)
        with run.epoch(0):
            (loop or steps)(training, run)
        run.flush()
        _settle(run, training.patience)
        distributed.barrier()
        run.flush()
    events = [each for each in memory.events if each.event_type == EventType.RED_FLAG_RAISED]
    compared = [each for each in memory.measurements if isinstance(each, ReplicasCompared)]
    return {
        "flags": {str(each.data["flag"]): {**each.data, "message": each.message} for each in reversed(events)},
        "outcomes": [(each.step, each.outcome) for each in compared],
        "skews": [each.skew for each in compared if each.skew is not None],
        "faults": dict(hub.error_boundary.faults),
    }


def _settle(run: nissa.Run, patience: float) -> None:
    """Wait until all that was reported is compared and judged; a busy machine takes longer than the end of a run waits."""
    replicas, deadline = run._runtime.replicas, monotonic() + patience
    while monotonic() < deadline and (replicas._thread._pending or replicas._results):
        sleep(0.01)


def steps(training: Training, _run: Any) -> None:
    """Train for some steps."""
    generator = torch.Generator().manual_seed(100 + training.batches)
    call = training.call or training.model
    for step in range(training.steps):
        inputs = torch.randn(16, 8, generator=generator)
        training.optimizer.zero_grad()
        loss = cross_entropy(call(inputs), torch.randint(CLASSES, (16,), generator=generator))
        torch.autograd.backward(loss.full_tensor() if isinstance(loss, DTensor) else loss)
        if training.before_step(step) is not False:
            training.optimizer.step()
        training.after_step(step)


def healthy() -> dict[str, Any]:
    """Replicas as they should be."""
    model = wrapped()
    return trained(Training(model, adam(model), batches=rank()))


# Faults.


def module_called_without_its_wrapper() -> dict[str, Any]:
    """The loop calls the module in the wrapper."""
    model = wrapped()
    return trained(Training(model, adam(model), call=model.module, batches=rank()))


def wrapper_forgotten() -> dict[str, Any]:
    """There is no wrapper at all."""
    model = net()
    return trained(Training(model, adam(model), batches=rank()))


def clipping_on_the_last_rank() -> dict[str, Any]:
    """Gradients of one rank are clipped."""
    model, last = wrapped(), rank() == distributed.get_world_size() - 1

    def clip(step: int) -> None:
        if last and step >= BROKEN:
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)

    return trained(Training(model, adam(model), batches=rank(), before_step=clip))


def other_learning_rate() -> dict[str, Any]:
    """A rank has another learning rate."""
    model = wrapped()
    return trained(Training(model, adam(model, lr=0.02 if rank() == 1 else 0.01), batches=rank()))


def other_weight_decay() -> dict[str, Any]:
    """A rank has another weight decay."""
    model = wrapped()
    return trained(Training(model, adam(model, weight_decay=0.5 if rank() == 1 else 0.01), batches=rank()))


def skipped_step() -> dict[str, Any]:
    """A rank leaves out one step."""
    model = wrapped()
    skip = rank() == 1
    training = Training(model, adam(model), batches=rank(), before_step=lambda step: not (skip and step == BROKEN))
    return trained(training)


def flipped_bit() -> dict[str, Any]:
    """One bit of one weight of the second rank flips."""
    model = wrapped()

    def flip(step: int) -> None:
        if rank() == 1 and step == BROKEN:
            with torch.no_grad():
                model.module[2].weight.view(torch.int32)[1, 2] ^= 1 << 22

    return trained(Training(model, adam(model), batches=rank(), after_step=flip))


def other_initial_weights() -> dict[str, Any]:
    """A rank loads other weights after the model was wrapped."""
    model = wrapped()
    if rank() == 1:
        model.module.load_state_dict(net(seed=3).state_dict())
    return trained(Training(model, adam(model), batches=rank()))


def gradients_changed_on_one_rank() -> dict[str, Any]:
    """A rank adds noise to its gradients."""
    model = wrapped()

    def disturb(_: int) -> None:
        for parameter in model.parameters() if rank() == 1 else ():
            assert parameter.grad is not None
            parameter.grad += torch.rand_like(parameter)

    return trained(Training(model, adam(model), batches=rank(), before_step=disturb))


def same_data() -> dict[str, Any]:
    """The first and the last rank read the same batches."""
    model = wrapped()
    return trained(Training(model, adam(model), batches=rank() % (distributed.get_world_size() - 1)))


def a_hand_made_group() -> dict[str, Any]:
    """Gradients are averaged by hand in a group that the user passes, and a bit flips."""
    model, group = net(), new_group()

    def average(_: int) -> None:
        for parameter in model.parameters():
            distributed.all_reduce(gradient(parameter), group=group)

    def flip(step: int) -> None:
        if rank() == 1 and step == BROKEN:
            with torch.no_grad():
                model.get_parameter("0.bias").view(torch.int32)[3] ^= 1 << 21

    training = Training(model, adam(model), batches=rank(), before_step=average, after_step=flip)
    training.watch = {"replicas": group}
    return trained(training)


# Programs that resemble these.


def composable() -> dict[str, Any]:
    """``replicate()`` hooks the module instead of wrapping it."""
    from torch.distributed._composable.replicate import replicate  # noqa: PLC0415 - imported by those who use it

    model = replicate(net())
    return trained(Training(model, adam(model), batches=rank()))


def composable_with_meshes() -> dict[str, Any]:
    """``replicate()`` of FSDP2 keeps parameters as replicated DTensors."""
    from torch.distributed._composable.replicate_with_fsdp import replicate  # noqa: PLC0415 - as above

    model = net()
    replicate(model, mesh=init_device_mesh("cpu", (distributed.get_world_size(),)))
    return trained(Training(model, adam(model, foreach=False), batches=rank()))


def composable_with_a_flipped_bit() -> dict[str, Any]:
    """A bit flips under ``replicate()``."""
    from torch.distributed._composable.replicate import replicate  # noqa: PLC0415 - as above

    model = replicate(net())

    def flip(step: int) -> None:
        if rank() == 1 and step == BROKEN:
            with torch.no_grad():
                model.get_parameter("2.weight").view(torch.int32)[1, 2] ^= 1 << 22

    return trained(Training(model, adam(model), batches=rank(), after_step=flip))


def batch_norm() -> dict[str, Any]:
    """Running statistics differ between ranks, and are no weights."""
    model = wrapped(net(norm=True))
    return trained(Training(model, adam(model), batches=rank()))


def parameters_of_a_ranks_own() -> dict[str, Any]:
    """The wrapper ignores a layer, which each rank trains for itself."""
    network = net()
    names = [f"2.{name}" for name, _ in network[2].named_parameters()]
    network._ddp_params_and_buffers_to_ignore = names  # type: ignore[assignment]  # as torch documents it
    model = wrapped(network)
    return trained(Training(model, adam(model), batches=rank()))


def accumulation_without_sync() -> dict[str, Any]:
    """Gradients of two batches are accumulated, the first without synchronising."""
    model = wrapped()

    def loop(training: Training, _run: Any) -> None:
        generator = torch.Generator().manual_seed(rank())
        for _ in range(STEPS):
            training.optimizer.zero_grad()
            with model.no_sync():
                model(torch.randn(4, 8, generator=generator)).square().mean().backward()
            model(torch.randn(4, 8, generator=generator)).square().mean().backward()
            training.optimizer.step()

    return trained(Training(model, adam(model)), loop)


def unequal_numbers_of_batches(*, plain: bool = True) -> dict[str, Any]:
    """Ranks have different numbers of batches in each of two epochs, which ``Join`` allows."""
    model = wrapped()

    def loop(training: Training, _run: Any) -> None:
        generator = torch.Generator().manual_seed(rank())
        for _ in range(2):
            with Join([model]):
                for _ in range(5 + 2 * rank()):
                    training.optimizer.zero_grad()
                    model(torch.randn(4, 8, generator=generator)).square().mean().backward()
                    training.optimizer.step()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1) if plain else adam(model)
    return trained(Training(model, optimizer, settings={"gradients__every_n_steps": 1}, patience=2.0), loop)


def unequal_numbers_of_updates() -> dict[str, Any]:
    """``Join`` copies the weights of the rank that ends last, but not the state of its optimizer."""
    return unequal_numbers_of_batches(plain=False)


def sharded() -> dict[str, Any]:
    """Each rank has a shard of its own."""
    model = net()
    fully_shard(model, mesh=init_device_mesh("cpu", (distributed.get_world_size(),)))
    return trained(Training(model, adam(model, foreach=False), batches=rank()))


def stages_of_a_pipeline() -> dict[str, Any]:
    """Two stages of equal shape, which even begin with the same weights."""
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Linear(8, 8))

    def loop(training: Training, _run: Any) -> None:
        for step in range(STEPS):
            training.optimizer.zero_grad()
            if rank() == 0:
                output = stage(torch.randn(4, 8, generator=torch.Generator().manual_seed(step)))
                distributed.send(output.detach(), 1)
                returned = torch.empty_like(output)
                distributed.recv(returned, 1)
                output.backward(returned)
            else:
                received = torch.empty(4, 8)
                distributed.recv(received, 0)
                received.requires_grad_()
                stage(received).square().mean().backward()
                distributed.send(gradient(received), 0)
            training.optimizer.step()

    return trained(Training(stage, adam(stage)), loop)


def experts_of_a_ranks_own() -> dict[str, Any]:
    """A shared layer is averaged by hand, and each rank has an expert of its own."""
    model = net()

    def average(_: int) -> None:
        for parameter in model[0].parameters():
            distributed.all_reduce(gradient(parameter))

    return trained(Training(model, adam(model), batches=rank(), before_step=average))


def unrelated_models() -> dict[str, Any]:
    """Each rank trains a model of its own from other initial weights."""
    model = net(seed=rank())
    return trained(Training(model, adam(model), batches=rank()))


def local_sgd() -> dict[str, Any]:
    """Weights are averaged now and then only, which the user states."""
    model = net()
    return trained(Training(model, adam(model), batches=rank(), watch={"replicas": None}))


def local_sgd_by_the_setting() -> dict[str, Any]:
    """The same, stated by the setting."""
    model = net()
    return trained(Training(model, adam(model), batches=rank(), settings={"replicas__enabled": False}))


def excluded_layers() -> dict[str, Any]:
    """A layer of each rank's own is excluded by the setting."""
    model = net()

    def average(_: int) -> None:
        for parameter in model[0].parameters():
            distributed.all_reduce(gradient(parameter))

    group = new_group()
    training = Training(model, adam(model), batches=rank(), before_step=average, watch={"replicas": group})
    training.settings = {"replicas__layers": ["!2.*"]}
    return trained(training)


def one_batch_learned_on_purpose() -> dict[str, Any]:
    """All ranks learn the same batch again and again."""
    model = wrapped()
    fixed = torch.randn(16, 8, generator=torch.Generator().manual_seed(5))
    return trained(Training(model, adam(model), call=lambda _: model(fixed)))


def ranks_that_sample_other_steps() -> dict[str, Any]:
    """Ranks have different settings, so that only some steps are compared."""
    model = wrapped()
    settings = {"gradients__every_n_steps": 2 + rank()}
    return trained(Training(model, adam(model), batches=rank(), settings=settings, patience=2.0))


def a_rank_without_nissa() -> dict[str, Any]:
    """The second rank is not watched, so that nothing can be compared."""
    model = wrapped()
    training = Training(model, adam(model), batches=rank())
    if rank() == 0:
        memory = nissa.MemoryBackend()
        settings: dict[str, Any] = {"run_id": "alone", "console__enabled": False, "replicas__every_n_samples": 1}
        with nissa.start("standard", backends=[memory], **settings) as run:
            distributed.barrier()
            run.watch(model, training.optimizer)
            steps(training, run)
        found = [each.outcome for each in memory.measurements if isinstance(each, ReplicasCompared)]
        return {"flags": {}, "outcomes": [(0, each) for each in found], "faults": {}, "skews": []}
    distributed.barrier()
    steps(training, None)
    return {"flags": {}, "outcomes": [], "faults": {}, "skews": []}


def tensor_parallel() -> dict[str, Any]:
    """Layers are split, and norms are replicated over all ranks, which read the same data."""
    return trained(_tensor_parallel())


def tensor_parallel_with_clipping_on_one_rank() -> dict[str, Any]:
    """The published precedent: gradients of norms are clipped on one rank of a tensor parallel group."""
    training = _tensor_parallel()

    def clip(step: int) -> None:
        for name, parameter in training.model.named_parameters():
            if name.startswith("norm"):  # add up the parts of its gradient, as a trainer does before it clips
                parameter.grad = parameter.grad.redistribute(placements=[Replicate()])  # type: ignore[union-attr]  # see below
        if rank() == 1 and step >= BROKEN:
            for name, parameter in training.model.named_parameters():
                if name.startswith("norm"):
                    parameter.grad.to_local().mul_(0.01)  # type: ignore[union-attr]  # a DTensor

    training.before_step = clip
    return trained(training)


class _Split(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.up(self.norm(x)).relu())
        return y


def _tensor_parallel() -> Training:
    torch.manual_seed(0)
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    plan = {"norm": SequenceParallel(sequence_dim=0), "up": ColwiseParallel(), "down": RowwiseParallel()}
    model = parallelize_module(_Split(), mesh, plan)
    return Training(
        model, adam(model, foreach=False), call=lambda x: model(x.chunk(distributed.get_world_size())[rank()])
    )


def a_group_that_ends() -> dict[str, Any]:
    """The process group is destroyed in the middle; must be the last scenario."""
    model = wrapped()
    training = Training(model, adam(model), batches=rank())
    memory, hub = nissa.MemoryBackend(), nissa.get_hub()
    settings: dict[str, Any] = {
        "console__enabled": False,
        "gradients__every_n_steps": 2,
        "replicas__every_n_samples": 1,
    }
    with nissa.start("standard", backends=[memory], **settings) as run:
        distributed.barrier()
        run.watch(model, training.optimizer)
        steps(training, run)
        run.flush()
        distributed.barrier()
        distributed.destroy_process_group()
        training.call = model.module
        steps(training, run)
    outcomes = [(each.step, each.outcome) for each in memory.measurements if isinstance(each, ReplicasCompared)]
    return {"flags": {}, "outcomes": outcomes, "faults": dict(hub.error_boundary.faults), "skews": []}


# Replicas of shards, on four ranks.


def hybrid() -> dict[str, Any]:
    """Two replicas of two shards each."""
    return trained(_hybrid())


def hybrid_with_a_flipped_bit() -> dict[str, Any]:
    """A bit of a shard of the second replica flips."""
    training = _hybrid()

    def flip(step: int) -> None:
        if rank() == 3 and step == BROKEN:
            with torch.no_grad():
                weight = training.model.get_parameter("2.weight").to_local()  # type: ignore[attr-defined]
                weight.view(torch.int32)[0, 1] ^= 1 << 22

    training.after_step = flip
    return trained(training)


def _hybrid() -> Training:
    model = net()
    fully_shard(model, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))
    return Training(model, adam(model, foreach=False), batches=rank())


COMMON: Final = (healthy, clipping_on_the_last_rank, flipped_bit, same_data)
ENDING: Final = (a_group_that_ends,)
BY_RANKS: Final = {
    2: (
        *COMMON[:3],
        module_called_without_its_wrapper,
        wrapper_forgotten,
        other_learning_rate,
        other_weight_decay,
        skipped_step,
        other_initial_weights,
        gradients_changed_on_one_rank,
        same_data,
        a_hand_made_group,
        unequal_numbers_of_updates,
        composable_with_a_flipped_bit,
        composable,
        composable_with_meshes,
        batch_norm,
        parameters_of_a_ranks_own,
        accumulation_without_sync,
        unequal_numbers_of_batches,
        sharded,
        stages_of_a_pipeline,
        experts_of_a_ranks_own,
        unrelated_models,
        local_sgd,
        local_sgd_by_the_setting,
        excluded_layers,
        one_batch_learned_on_purpose,
        ranks_that_sample_other_steps,
        tensor_parallel,
        tensor_parallel_with_clipping_on_one_rank,
        a_rank_without_nissa,
        *ENDING,
    ),
    3: COMMON,
    4: (hybrid, hybrid_with_a_flipped_bit),
}


def _store(port: int, ranks: int) -> Any:
    """Return the store at a port, which this process serves if it is 0."""
    kind: Any = distributed.TCPStore  # type: ignore[attr-defined]  # torch does not mark it as exported
    return kind("127.0.0.1", port, ranks, is_master=port == 0, wait_for_workers=False)


@contextmanager
def _group(number: int, ranks: int, folder: Path) -> Iterator[None]:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(ranks)}
    port = 0
    place = folder / "port"
    if number == 0:
        store = _store(0, ranks)
        place.with_suffix(".new").write_text(str(store.port))
        place.with_suffix(".new").rename(place)
    else:
        while not place.exists():
            pass
        port = int(place.read_text())
        store = _store(port, ranks)
    distributed.init_process_group("gloo", store=store, rank=number, world_size=ranks, timeout=timedelta(seconds=120))
    yield
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def play(number: int, folder: str, ranks: int) -> None:
    """Run the scenarios, and write what this rank found."""
    place = Path(folder)
    os.chdir(place)
    found: dict[str, Any] = {}
    with _group(number, ranks, place):
        for scenario in BY_RANKS[ranks]:
            found[scenario.__name__] = scenario()
            nissa.reset_hub()
            if scenario not in ENDING:
                distributed.barrier()
                found[scenario.__name__]["keys"] = _keys()
                distributed.barrier()
    (place / f"found{number}.json").write_text(json.dumps(found))


def _keys() -> int:
    """Return the number of keys in the store that the comparison has left."""
    store = default_store()
    if not hasattr(store, "list_keys"):
        return 0
    return sum("nissa/replicas" in key for key in store.list_keys())


def play_two(number: int, folder: str) -> None:
    """Run the scenarios of two ranks."""
    play(number, folder, 2)


def play_three(number: int, folder: str) -> None:
    """Run the scenarios of three ranks."""
    play(number, folder, 3)


def play_four(number: int, folder: str) -> None:
    """Run the scenarios of four ranks."""
    play(number, folder, 4)
