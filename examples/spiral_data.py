"""Points of two noisy spirals, for the training examples."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


def spirals(samples: int = 256, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return points, shape ``(samples, 2)``, and the spiral that each belongs to, 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    arm = torch.arange(samples) % 2
    angle = 3 * torch.rand(samples, generator=generator).sqrt() * torch.pi
    points = torch.stack([angle.cos(), angle.sin()], 1) * angle[:, None] * (1 - 2 * arm[:, None]) / 5
    return points + 0.05 * torch.randn(points.shape, generator=generator), arm


def classifier() -> nn.Module:
    """Return a small network with two outputs."""
    return nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))


def rank_batches() -> tuple[DataLoader[tuple[Tensor, ...]], DistributedSampler[tuple[Tensor, ...]]]:
    """Return batches of 32 points of this rank, and the sampler that shuffles them for each epoch."""
    data = TensorDataset(*spirals())
    sampler: DistributedSampler[tuple[Tensor, ...]] = DistributedSampler(data)
    return DataLoader(data, batch_size=32, sampler=sampler), sampler
