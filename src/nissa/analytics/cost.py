"""Compute cost of a blueprint: from the configuration, or measured on a module."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class MeasuredCost:
    """Compute cost of a module relative to its host.

    Args:
        parameters: Number of parameters of the module.
        flops: Floating point operations of one forward pass, as ``torch.utils.flop_counter`` counts them.
        multiplier: Cost of the host with the module as a multiple of its cost without: ``1 + flops / host_flops``.
    """

    parameters: int
    flops: int
    multiplier: float


class ComputeCosts:
    """Compute multipliers of blueprints.

    Args:
        table: Configured multipliers by blueprint.
    """

    def __init__(self, table: Mapping[str, float]) -> None:
        self._table = dict(table)
        self.measured: dict[str, float] = {}

    def of(self, blueprint: str) -> float | None:
        """Return the multiplier of a blueprint: the configured one, else the measured one, else None."""
        return self._table.get(blueprint, self.measured.get(blueprint))

    def total(self, distribution: Mapping[str, int]) -> float:
        """Return the cost of a network with counts of seeds by blueprint: ``1 + sum((multiplier - 1) * count)``."""
        known = {name: multiplier for name in distribution if (multiplier := self.of(name)) is not None}
        return 1 + sum((multiplier - 1) * distribution[name] for name, multiplier in known.items())

    def unknown(self, distribution: Mapping[str, int]) -> list[str]:
        """Return the blueprints of unknown cost, which `total` excludes."""
        return sorted(name for name, count in distribution.items() if count and self.of(name) is None)


def measure(
    module: "torch.nn.Module", example: "torch.Tensor", host: "torch.nn.Module", host_example: "torch.Tensor"
) -> MeasuredCost:
    """Count the operations of copies of a module and its host; the originals and all random states stay unchanged."""
    parameters = sum(parameter.numel() for parameter in module.parameters())
    flops, host_flops = _flops(module, example), _flops(host, host_example)
    return MeasuredCost(parameters, flops, 1 + flops / host_flops if host_flops else 1.0)


def _flops(module: "torch.nn.Module", example: "torch.Tensor") -> int:
    import torch  # noqa: PLC0415 - `import nissa` must not import torch
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415 - see above

    twin = copy.deepcopy(module)
    devices = [example.device] if example.is_cuda else []
    with torch.random.fork_rng(devices), torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(example)
    return int(counter.get_total_flops())
