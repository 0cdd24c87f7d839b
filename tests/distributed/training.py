"""What all that train together share: batches, meshes, and models in shards."""

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.distributed.networks import Block


def batch(*shape: int, seed: int = 1) -> Tensor:
    """Return the same batch on every rank."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mine(whole: Tensor, part: int | None = None, parts: int | None = None) -> Tensor:
    """Return a part of a batch, that of this rank where none is named."""
    part = distributed.get_rank() if part is None else part
    return whole.chunk(parts or distributed.get_world_size())[part]


def line() -> DeviceMesh:
    """Return a mesh of all ranks."""
    return init_device_mesh("cpu", (distributed.get_world_size(),))


def backward(model: nn.Module, inputs: Tensor) -> None:
    """Make gradients."""
    loss = model(inputs).pow(3).mean()
    (loss.full_tensor() if isinstance(loss, DTensor) else loss).backward()


def fully_sharded(model: Block, mesh: DeviceMesh) -> Block:
    """Shard a network as users do: its layers, and itself around them."""
    for layer in (model.up, model.down):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model
