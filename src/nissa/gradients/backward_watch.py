"""Watch on optimizers that step during the backward pass, one per parameter.

Each optimizer steps as soon as the gradient of its parameter is complete (a hook of
``Tensor.register_post_accumulate_grad_hook`` calls it) and frees the gradient, so that all gradients never exist at the
same time. All steps of one backward pass are one step of the model.
"""

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from nissa.gradients.capture import Capture
from nissa.gradients.hooks import active_steps, recording
from nissa.gradients.watch import Watch

if TYPE_CHECKING:
    from nissa.gradients.step_row import StepRow


class BackwardWatch(Watch):
    """Several optimizers that step once per backward pass; returned by ``run.watch``.

    A pass ends when every optimizer has stepped. If parameters are unused, it ends with the first step of the next pass,
    and its row is held back until then, or until somebody waits for rows.

    Args:
        optimizers: The optimizers; together they are one.
        shared: The other arguments of `Watch`.
    """

    _in_backward = True

    def __init__(self, model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer], **shared: Any) -> None:
        self._every = tuple(weakref.ref(optimizer) for optimizer in optimizers)
        self._ids = tuple(map(id, optimizers))
        self._stepped: set[int] = set()
        self._running: set[int] = set()
        self._pass: StepRow | None = None
        super().__init__(model, optimizers[0], outer=optimizers[1:], hooks=True, scaler=None, **shared)
        self._hook_of = dict(zip(self._ids, self._hooks, strict=True))

    @property
    def keys(self) -> tuple[int, ...]:
        """The ``id()`` of each optimizer whose steps are counted."""
        return self._ids

    @property
    def watched(self) -> None:
        """None: there is no single optimizer whose next update could be computed."""
        return

    def watches(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether steps of an optimizer are counted."""
        return any(reference() is optimizer for reference in self._every)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of all optimizers."""
        optimizers = (reference() for reference in self._every)
        return [group for optimizer in optimizers if optimizer is not None for group in optimizer.param_groups]

    def close(self) -> None:
        """Stop watching and remove all hooks; idempotent."""
        self._end_pass()
        super().close()

    def _entered(
        self,
        optimizer: torch.optim.Optimizer,
        args: tuple[Any, ...],  # noqa: ARG002 - a hook of a gradient passes no closure
        kwargs: dict[str, Any],  # noqa: ARG002
    ) -> None:
        key = id(optimizer)
        self._nested = key in self._running and active_steps(frozenset({key})) > 1
        if not self._nested:
            if key in self._stepped or not self._stepped:
                self._begin_pass()
            self._stepped.add(key)
            self._running.add(key)
        if self._due:  # in a nested step again, as the innermost one uses the gradients
            self._begin(optimizer, everything=False)

    def _begin_pass(self) -> None:
        self._end_pass()
        self._stepped.clear()
        self._due = self._wanted() and not recording()
        scope, model = self._scope(), self._model()
        if scope is None:
            return
        scope.captures.clear()
        scope.chosen.clear()
        if self._due and model is None:
            self._warn_orphaned()
        elif self._due and model is not None:
            with self._error_boundary.guard("gradient capture"):
                chosen = self._measurable(self._sampling.selection.names(model, self))
                scope.chosen.update((id(parameter), (name, parameter)) for name, parameter in chosen)

    def _begin(self, optimizer: torch.optim.Optimizer, *, everything: bool) -> None:  # noqa: ARG002 - as above
        scope = self._scope()
        if scope is None:
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        chosen = [scope.chosen[id(parameter)] for parameter in parameters if id(parameter) in scope.chosen]
        with self._error_boundary.guard("gradient capture"), torch.no_grad():
            used = [pair for pair in chosen if pair[1].grad is not None]
            capture = Capture(self._sampling.measures, used, optimizer, self._model())
            capture.read()
            scope.captures[id(optimizer)] = capture

    def _left(self, optimizer: torch.optim.Optimizer) -> None:
        key, scope = id(optimizer), self._scope()
        if key not in self._running or active_steps(frozenset({key})) > 1:
            return
        self._running.discard(key)
        self._hook_of[key].stay_last()
        capture = None if scope is None else scope.captures.pop(key, None)
        with self._error_boundary.guard("step"):
            row = self._pass or self._begin_row(scope)
            if capture is not None and row.take():
                self._finish(capture, row)
                row.hold()
        if len(self._stepped) == len(self._every):
            self._end_pass()

    def _begin_row(self, scope: Any) -> "StepRow":
        """Return the row of the pass, which begins with its first step, and count it."""
        row = self._pass = self._row(_Rates(self.param_groups))  # type: ignore[arg-type]  # only its groups are read
        if scope is not None:
            row.expected = tuple(name for name, parameter in scope.chosen.values() if parameter.requires_grad)
        row.hold()
        self._clock.expect(row, self._counts.order, self.name, primary=self.primary)
        self._counts.steps += 1
        self._counts.samples += self._due
        return row

    def _end_pass(self) -> None:
        row, self._pass = self._pass, None
        if row is not None and not row.waits and row.take():
            row.send()


class _Rates:
    """Parameter groups for the learning rates: a single one if all have the same rate."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        rates = [group.get("lr") for group in groups]
        # Tensors are compared by identity, because comparing their values would wait for a device.
        equal = all(rate is rates[0] or (isinstance(rate, float) and rate == rates[0]) for rate in rates)
        self.param_groups = groups[:1] if equal else groups
