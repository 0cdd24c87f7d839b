"""Model of an optimizer, found by the identity of its parameters."""

import gc
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

import torch
from torch import nn

from nissa.distributed.sharding import replicated
from nissa.torch_compat import is_initialised, runs_step_hooks

T = TypeVar("T")

_WRAPPERS: Final = ("torch.nn.parallel", "torch._dynamo", "torch.distributed", "accelerate", "lightning.fabric")
"""Packages whose modules wrap the module of a script and own the same parameters."""


class JointModel(nn.Module):
    """Container of the models, and of the single parameters, that one optimizer trains together."""

    def __init__(self, models: Iterable[nn.Module], parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        for model in models:
            self.add_module(_unused(type(model).__name__, self._modules), model)
        for parameter in parameters:
            self.register_parameter(_unused("parameter", self._parameters), parameter)


class FoundModel(NamedTuple):
    """Model of an optimizer.

    Attributes:
        model: The model.
        called: Outermost module around it that owns the same parameters, such as the wrapper of ``torch.compile``; the
            model itself without a wrapper. A training loop usually calls this one.
        watched: Module for ``run.watch``: that of ``DistributedDataParallel``, which knows that all ranks have the same
            gradients, else the model.
    """

    model: nn.Module
    called: nn.Module
    watched: nn.Module


def find_model(optimizer: torch.optim.Optimizer) -> FoundModel | None:
    """Return the model whose parameters an optimizer trains.

    It is the smallest module that owns all of them, and among equal ones the outermost that is no wrapper. Where no
    single module owns them all, it is a `JointModel` of the outermost modules that consist of them. None if no module
    of the process owns any and none is an ``nn.Parameter``.
    """
    wanted = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    owners = {module: owned for module, owned in _owners() if owned & wanted}
    whole = {module: owned for module, owned in owners.items() if owned >= wanted}
    if whole:
        smallest = min(map(len, whole.values()))
        equal = [module for module, owned in whole.items() if len(owned) == smallest]
        model = _outermost(equal)
        replicas = next((module for module in equal if replicated(module) is not None), model)
        return FoundModel(model, _outermost(equal, ()), replicas)
    joint = _joint(optimizer, {module: owned for module, owned in owners.items() if owned <= wanted})
    return None if joint is None else FoundModel(joint, joint, joint)


def optimizers_alive() -> list[torch.optim.Optimizer]:
    """Return the optimizers of the process whose step hooks can run."""
    return [each for each in _instances(torch.optim.Optimizer) if runs_step_hooks(each)]


def _joint(optimizer: torch.optim.Optimizer, parts: dict[nn.Module, set[int]]) -> nn.Module | None:
    chosen: list[nn.Module] = []
    covered: set[int] = set()
    while parts:
        largest = max(map(len, parts.values()))
        model = _outermost([module for module, owned in parts.items() if len(owned) == largest])
        chosen.append(model)
        covered |= parts[model]
        parts = {module: owned for module, owned in parts.items() if not owned & covered}
    order = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    chosen.sort(key=lambda module: min(order.index(id(each)) for each in module.parameters()))
    single = [
        parameter
        for group in optimizer.param_groups
        for parameter in group["params"]
        if id(parameter) not in covered and isinstance(parameter, nn.Parameter)
    ]
    return JointModel(chosen, single) if chosen or single else None


def _outermost(equal: list[nn.Module], without: tuple[str, ...] = _WRAPPERS) -> nn.Module:
    """Return the outermost of modules with the same parameters, without those of some packages where possible."""
    own = [module for module in equal if not type(module).__module__.startswith(without)] or equal
    inner = {id(child) for module in own for child in module.modules() if child is not module}
    return next((module for module in own if id(module) not in inner), own[0])


def _owners() -> Iterator[tuple[nn.Module, set[int]]]:
    for module in _instances(nn.Module):
        if is_initialised(module) and not isinstance(module, JointModel):
            yield module, {id(parameter) for parameter in module.parameters()}


def _instances(kind: type[T]) -> Iterator[T]:
    # The type, not isinstance(): a proxy may compute its __class__, which is foreign code.
    for candidate in gc.get_objects():
        if issubclass(type(candidate), kind):
            yield candidate


def _unused(name: str, taken: Iterable[str]) -> str:
    names = set(taken)
    return (
        name
        if name not in names
        else next(f"{name}_{n}" for n in range(2, len(names) + 3) if f"{name}_{n}" not in names)
    )
