"""What processes that train together do, and what they find: one function per scenario, called on every rank.

In float64, so that a sharded training and the same one unsharded give the same counts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from nissa.distributed.reduce import merge_ranks
from nissa.distributed.sharding import locals_of, replicated
from nissa.kernels.moments import BucketRange, Layout, Thresholds
from nissa.kernels.reference import measure
from tests.distributed.networks import Block, Transformed, built
from tests.distributed.training import backward, batch, fully_sharded, line, mine

LAYOUT = Layout(BucketRange(scale=2, min_exponent=-30, max_exponent=10))
THRESHOLDS = Thresholds(vanishing=1e-3, exploding=0.5)

Found: TypeAlias = Mapping[str, Any]


def _truth(kind: type[nn.Module], whole: Tensor) -> dict[str, Tensor]:
    """Return copies of the gradients that the same training has unsharded, without elements where there is none."""
    model = built(kind)
    backward(model, whole)
    return {name: _gradient(each).clone() for name, each in model.named_parameters()}


def _gradient(parameter: Tensor) -> Tensor:
    return torch.empty(0) if parameter.grad is None else parameter.grad


def _rows(gradients: "Sequence[Tensor | None]") -> Tensor:
    return measure([torch.empty(0) if each is None else each for each in gradients], LAYOUT, THRESHOLDS)


def _copies(gradients: "Sequence[Tensor | None]") -> list[Any]:
    """Return all that can be seen of gradients."""
    return [
        (each.placements, each.to_local().clone()) if isinstance(each, DTensor) else ((), each.clone())
        for each in gradients
        if each is not None
    ]


def _same(left: list[Any], right: list[Any]) -> bool:
    return all(
        a == b and torch.allclose(x, y, rtol=0, atol=0, equal_nan=True)
        for (a, x), (b, y) in zip(left, right, strict=True)
    )


def _found(
    parameters: Sequence[Tensor],
    truth: Mapping[str, Tensor],
    *,
    gradients: "Sequence[Tensor | None] | None" = None,
    failed: bool = False,
) -> dict[str, Any]:
    """Measure gradients as they are on this rank, merge, and say what is to be expected."""
    gradients = [parameter.grad for parameter in parameters] if gradients is None else gradients
    before = _copies(gradients)
    with torch.no_grad(), CommDebugMode() as collectives:  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        locals_ = locals_of(list(zip(parameters, gradients, strict=True)))
        reductions = collectives.get_total_counts()
        sums = torch.tensor([[float(bool(each.groups)), 1.0] for each in locals_], dtype=torch.float64)
        rows, sums_of_all = merge_ranks(
            _rows([each.tensor for each in locals_]),
            LAYOUT,
            [each.groups for each in locals_],
            present=[each.tensor is not None for each in locals_],
            failed=failed,
            sums=sums,
        )
    return {
        "names": tuple(truth),
        "rows": rows,
        "truth": _rows(list(truth.values())),
        "there": [each.numel() > 0 for each in truth.values()],
        "groups": [[group.size() for group in each.groups] for each in locals_],
        "sizes": [None if each.tensor is None else each.tensor.numel() for each in locals_],
        "first": [each.first for each in locals_],
        "plain": all(type(each.tensor) is Tensor for each in locals_ if each.tensor is not None),
        "sums": sums_of_all,
        "untouched": _same(before, _copies(gradients)),
        "reductions": reductions,
        "collectives": collectives.get_total_counts() - reductions,
    }


def ddp() -> Found:
    """Gradients are whole on every rank already."""
    whole = batch(8, 6)
    model = nn.parallel.DistributedDataParallel(built(Block), find_unused_parameters=True)
    backward(model, mine(whole))
    group = replicated(model)
    assert group is not None
    return {**_found(list(model.parameters()), _truth(Block, whole)), "replicas": group.size()}


def _fully_sharded(mesh: DeviceMesh, whole: Tensor) -> Block:
    model = fully_sharded(built(Block), mesh)
    backward(model, mine(whole))
    return model


def fsdp() -> Found:
    """Parameters in shards, uneven ones and empty ones among them."""
    whole = batch(8, 6)
    model = _fully_sharded(line(), whole)
    return _found(list(model.parameters()), _truth(Block, whole))


def fsdp_without_some_gradients() -> Found:
    """A rank lacks a gradient that another has, so that it is only the other's part that is known."""
    whole = batch(8, 6)
    model = _fully_sharded(line(), whole)
    truth = _truth(Block, whole)
    for rank, parameter in enumerate((model.up.weight, model.down.weight)):
        if distributed.get_rank() == rank:
            parameter.grad = None
    # The first rank has the first four rows of seven, and the first three of five.
    truth["up.weight"], truth["down.weight"] = truth["up.weight"][4:], truth["down.weight"][:3]
    return _found(list(model.parameters()), truth)


def fsdp_with_a_failure() -> Found:
    """The second rank could not measure anything."""
    whole = batch(8, 6)
    model = _fully_sharded(line(), whole)
    return _found(list(model.parameters()), _truth(Block, whole), failed=distributed.get_rank() == 1)


def fsdp_with_infinities() -> Found:
    """One rank has not a single finite element of a gradient, another but some, and of a third there is none anywhere."""
    whole = batch(8, 6)
    model = _fully_sharded(line(), whole)
    truth = _truth(Block, whole)
    truth["up.bias"][4:] = torch.nan
    truth["down.weight"][3] = torch.inf
    truth["down.bias"][:] = -torch.inf
    for name in ("up.bias", "down.weight", "down.bias"):
        gradient = model.get_parameter(name).grad
        assert isinstance(gradient, DTensor)
        gradient.copy_(distribute_tensor(truth[name], gradient.device_mesh, gradient.placements))
    return _found(list(model.parameters()), truth)


def fsdp_beside_whole_parameters() -> Found:
    """What FSDP was told to ignore is whole on every rank, and not to be added up."""
    whole = batch(8, 6)
    model = built(Block)
    fully_shard(model, mesh=line(), ignored_params={model.scale, model.up.bias, model.unused})
    backward(model, mine(whole))
    truth = _truth(Block, whole)
    # FSDP does not reduce them either: each rank has its own.
    alone = built(Block)
    backward(alone, mine(whole))
    truth["scale"], truth["up.bias"] = _gradient(alone.scale), _gradient(alone.up.bias)
    return _found(list(model.parameters()), truth)


def tensor_parallel() -> Found:
    """Layers in columns and rows; the gradients of norms are sums that nobody has added up yet."""
    whole = batch(4, 8, 4)
    model = _tensor_parallel(built(Transformed), line())
    backward(model, whole.chunk(2, dim=1)[distributed.get_rank()])
    return _found(list(model.parameters()), _truth(Transformed, whole))


def _tensor_parallel(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    plan = {
        "before": SequenceParallel(),
        "up": ColwiseParallel(input_layouts=Shard(1)),
        "down": RowwiseParallel(output_layouts=Shard(1), use_local_output=False),
        "after": SequenceParallel(),
    }
    return parallelize_module(model, mesh, plan)


def placements_that_differ() -> Found:
    """Gradients that are not placed as their parameters are; the optimizer would bring them there."""
    mesh, rank = line(), distributed.get_rank()
    whole = batch(6, 4)
    truth: dict[str, Tensor] = {}
    parameters, gradients = [], []
    for name, wanted, gradient in (
        ("whole of a sharded one", Shard(0), distribute_tensor(whole, mesh, [Replicate()])),
        ("shards of a whole one", Replicate(), distribute_tensor(whole, mesh, [Shard(0)])),
        ("shards of another dimension", Shard(0), distribute_tensor(whole, mesh, [Shard(1)])),
        ("a sum", Shard(0), DTensor.from_local(whole * (3 * rank - 1), mesh, [Partial()])),
        ("an average", Replicate(), DTensor.from_local(whole * (2 * rank), mesh, [Partial("avg")])),
        ("a maximum", Replicate(), DTensor.from_local(whole * 0 + rank, mesh, [Partial("max")])),
        (
            "on its way",
            Replicate(),
            distribute_tensor(whole, mesh, [Shard(0)]).redistribute(mesh, [Replicate()], async_op=True),
        ),
    ):
        truth[name] = torch.ones_like(whole) if name == "a maximum" else whole
        parameters.append(distribute_tensor(whole, mesh, [wanted]))
        gradients.append(gradient)
    return _found(parameters, truth, gradients=gradients)


def hsdp() -> Found:
    """Shards within each half of the ranks; the halves are alike."""
    whole = batch(8, 6)
    model = _fully_sharded(init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")), whole)
    return _found(list(model.parameters()), _truth(Block, whole))


def fsdp_of_tensor_parallel() -> Found:
    """Shards of shards, over two dimensions of the mesh."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    whole = batch(4, 8, 4)
    model = _tensor_parallel(built(Transformed), mesh["tensor"])
    for layer in model.children():
        fully_shard(layer, mesh=mesh["data"])
    fully_shard(model, mesh=mesh["data"])
    rows, columns = mesh.get_coordinate() or (0, 0)
    backward(model, mine(whole, rows, 2).chunk(2, dim=1)[columns])
    return _found(list(model.parameters()), _truth(Transformed, whole))


BY_RANKS: dict[int, tuple[Callable[[], Found], ...]] = {
    2: (
        ddp,
        fsdp,
        fsdp_without_some_gradients,
        fsdp_with_a_failure,
        fsdp_with_infinities,
        fsdp_beside_whole_parameters,
        tensor_parallel,
        placements_that_differ,
    ),
    4: (ddp, fsdp, hsdp, fsdp_of_tensor_parallel),
}
