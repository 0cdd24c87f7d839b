"""Several optimizers of one model: their names, and the handle of their watches."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from nissa.errors import UnknownNameError, WatchError
from nissa.gradients.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from nissa.gradients.sampling import SamplingSchedule
    from nissa.gradients.watch import Watch


class WatchGroup:
    """Watches of several optimizers of one model; returned by ``run.watch``.

    Attributes:
        watches: Watch of each optimizer by its name.
    """

    def __init__(self, watches: "Mapping[str, Watch]") -> None:
        self.watches = dict(watches)

    def __getitem__(self, name: str) -> "Watch":
        """Return the watch of an optimizer.

        Raises:
            UnknownNameError: No optimizer has this name.
        """
        if name not in self.watches:
            raise UnknownNameError("optimizer", name, self.watches)
        return self.watches[name]

    def __iter__(self) -> "Iterator[Watch]":
        """Iterate over the watches, in the order in which the optimizers were passed."""
        return iter(self.watches.values())

    def __len__(self) -> int:
        """Return the number of optimizers."""
        return len(self.watches)

    @property
    def steps(self) -> int:
        """Number of steps of the first optimizer."""
        return next(iter(self)).steps

    @contextmanager
    def step(self) -> Iterator[None]:
        """Mark one step of every optimizer manually, see `Watch.step`."""
        with ExitStack() as steps:
            for watch in self:
                steps.enter_context(watch.step())
            yield

    def close(self) -> None:
        """Stop watching all optimizers and remove all hooks; idempotent."""
        for watch in self:
            watch.close()


def open_group(
    model_name: str | None,
    names: Mapping[str, str],
    schedule: "SamplingSchedule",
    epoch: "Callable[[], object]",
    open_watch: "Callable[..., Watch]",
) -> WatchGroup:
    """Open the watches of a group; if one fails, none stays open.

    Args:
        model_name: Name of the model, None if it has none.
        names: Full name of each optimizer, by its name in the group.
        schedule: Sampling schedule of the group.
        epoch: Returns the current epoch.
        open_watch: Opens the watch of an optimizer by its name in the group, with ``member=`` as its sampling schedule.
    """
    rounds = Rounds(model_name, tuple(names.values()), schedule, epoch)
    watches: dict[str, Watch] = {}
    try:
        for name in names:
            watches[name] = open_watch(name, member=rounds.member())
    except BaseException:
        WatchGroup(watches).close()
        rounds.close()
        raise
    return WatchGroup(watches)


def are_several(optimizer: object) -> bool:
    """Whether the argument of ``watch()`` is a collection of optimizers."""
    return isinstance(optimizer, Iterable) and not isinstance(optimizer, str | torch.nn.Module | torch.Tensor)


def named(optimizers: "Mapping[Any, Any] | Iterable[Any]") -> dict[str, Any]:
    """Return optimizers by their names: the keys of a mapping, else the class in lower case, numbered if it repeats.

    Example:
        ``[Muon(...), AdamW(...)]`` are ``muon`` and ``adamw``; two of the class AdamW are ``adamw_0`` and ``adamw_1``.

    Raises:
        WatchError: There is none, one occurs twice, or a name is not a text.
    """
    found = dict(optimizers) if isinstance(optimizers, Mapping) else _by_class(list(optimizers))
    if not found:
        raise WatchError("watch() needs at least one optimizer; the collection is empty.")
    if len({id(optimizer) for optimizer in found.values()}) < len(found):
        raise WatchError("watch() got the same optimizer twice; pass each once.")
    for name in found:
        if not (isinstance(name, str) and name):
            raise WatchError(
                f"watch() needs a text as the name of each optimizer, not {type(name).__name__}: "
                'call watch(model, {"muon": muon, "adamw": adamw}), or pass a list.'
            )
    return found


def step_in_backward(optimizers: "Mapping[Any, Any] | Iterable[Any]") -> list[Any] | None:
    """Return the optimizers if there is one per parameter, so that they step during the backward pass; else None.

    That is a mapping from parameters to optimizers, or a list of optimizers with one parameter each.
    """
    if isinstance(optimizers, Mapping):
        by_parameter = bool(optimizers) and all(hasattr(key, "requires_grad") for key in optimizers)
        return list(optimizers.values()) if by_parameter else None
    found = list(optimizers)
    return found if len(found) > 1 and all(_parameters(each) == 1 for each in found) else None


def _by_class(optimizers: list[Any]) -> dict[str, Any]:
    classes = [type(optimizer).__name__.lower() for optimizer in optimizers]
    several, seen = Counter(classes), Counter[str]()
    found = {}
    for name, optimizer in zip(classes, optimizers, strict=True):
        found[f"{name}_{seen[name]}" if several[name] > 1 else name] = optimizer
        seen[name] += 1
    return found


def _parameters(optimizer: Any) -> int:
    return sum(len(group["params"]) for group in getattr(optimizer, "param_groups", ()))
