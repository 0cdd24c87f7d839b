"""Facts and values of a watched program for the contracts, collected on the training thread.

A few checks run at every step, since a parameter that has a gradient at every second step would never have one at every tenth.
They cost some microseconds. The others start work on a device or walk the network, and run at a few steps: numbers of the forward
pass at the first steps, at every tenth until step 200, then at every hundredth; facts about parameters at fewer of these. Nothing
waits for a device, and no reference to model or optimizer is kept.
"""

import logging
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import torch

from nissa.gradients.forward_probe import SHARED, ForwardProbe, modal_modules
from nissa.gradients.parameter_facts import ParameterFacts
from nissa.gradients.step_metadata import SIGNAL
from nissa.gradients.value_probes import InitialWeights, KeptGradients, StillWeights
from nissa.hub.program_facts import ForwardModes, ProgramFacts
from nissa.torch_compat import uncompiled

_logger = logging.getLogger("nissa")

if TYPE_CHECKING:
    from nissa.hub.error_boundary import ErrorBoundary

_FIRST: Final = frozenset({0, 1, 2, 4})
_OFTEN, _UNTIL, _RARELY = 10, 200, 100
_COMPLETE: Final = frozenset({0, 1, 2, 4, 10, 20, 40, 80, 120, 200})
"""Steps until step 200 at which the network is walked."""

_UNSEEN: Final = 2
"""Steps without a forward pass after which it is reported that none is seen."""

_EVALUATING: Final = 20
"""Steps in evaluation mode after which facts are collected at once."""


def observed(step: int) -> bool:
    """Whether numbers of the forward pass are collected at a step of a watch, counted from 0."""
    return step in _FIRST or step % (_OFTEN if step <= _UNTIL else _RARELY) == 0


def complete(step: int) -> bool:
    """Whether facts about parameters are collected as well."""
    return step in _COMPLETE if step <= _UNTIL else step % _RARELY == 0


class ProgramAudit:
    """Collector of the facts of one watch.

    Args:
        model: The watched model; hooks for inputs, outputs and modes are registered on it, if that is possible.
        held: Returns the parameters of all watched optimizers.
        error_boundary: Contains errors, after which the facts of the step are absent.
        hooks: Whether hooks may be registered on the model.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        held: Callable[[], Iterable[torch.Tensor]],
        error_boundary: "ErrorBoundary",
        *,
        hooks: bool = True,
    ) -> None:
        self.forward = ForwardProbe(model, error_boundary, hooks=hooks)
        self._error_boundary = error_boundary
        self._parameters = ParameterFacts(held)
        self._kept = KeptGradients()
        self._still = StillWeights()
        self._initial = InitialWeights()
        self._inner = weakref.ref(uncompiled(model))  # looking it up at each step would cost as much as all checks
        self._checked = self._evaluating = 0
        self._trained = False
        self._facts: ProgramFacts | None = None
        self._signals: dict[str, torch.Tensor] = {}
        self.forward.arm()

    def before(self, optimizer: torch.optim.Optimizer) -> None:
        """Collect the facts of a step that is about to happen; its gradients exist now."""
        with self._error_boundary.guard("contracts"):
            self._facts, self._signals = None, {}
            model = self._inner()
            if model is not None:
                self._check(model, optimizer)

    def after(self, optimizer: torch.optim.Optimizer) -> None:
        """Compare the weights after a step with those before it, and prepare the next step."""
        with self._error_boundary.guard("contracts"):
            if self._facts is not None:
                self._signals |= self._still.after()
            self._kept.after(optimizer)
            self.forward.step_ended()
            if observed(self._checked):
                self.forward.arm()

    def take(self) -> tuple[ProgramFacts | None, dict[str, torch.Tensor]]:
        """Return facts and device values of the step that just ended; None at a step at which none were collected."""
        facts, signals = self._facts, self._signals
        self._facts, self._signals = None, {}
        return facts, {SIGNAL + name: value for name, value in signals.items()}

    def modes(self) -> ForwardModes | None:
        """Return the modes of the forward passes since the last step; None if no hook counts them."""
        counts, model = self.forward.without_gradient, self.forward.model
        if model is None or counts is None:
            return None
        return ForwardModes(*counts, modal=modal_modules(model, training=True) if counts[0] else ())

    @property
    def unchecked(self) -> str | None:
        """Reason why contracts that need the forward pass are not checked; None if they are."""
        if self.forward.absent is None and self._checked > _UNSEEN and not self.forward.calls:
            return "no forward pass of the model was seen: it was compiled after watch(), or is called through another object"
        return self.forward.absent

    def close(self) -> None:
        """Remove the hooks of the model."""
        self.forward.close()

    def _check(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        number, self._checked = self._checked, self._checked + 1
        self._parameters.check(optimizer)
        carried = self._kept.before(optimizer)
        self._evaluating = 0 if model.training else self._evaluating + 1
        trained, self._trained = self._trained, self._trained or model.training
        if observed(number) or self._evaluating == _EVALUATING or carried:
            with torch.no_grad():
                self._signals = carried | self.forward.take()
                self._facts = self._observe(model, optimizer, number, trained=trained)

    def _observe(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, number: int, *, trained: bool
    ) -> ProgramFacts:
        facts: dict[str, Any] = {}
        if complete(number):
            facts, changed = self._parameters.observe(model, optimizer)
            self._still.before(optimizer)
            self._signals |= changed
        if number == 0:
            facts["matrices"], initial = self._initial.read(model)
            self._signals |= initial
        if number == _UNSEEN and (reason := self.unchecked) not in {None, SHARED}:
            _logger.info("Contracts about inputs, outputs and modes are not checked: %s.", reason)
        return ProgramFacts(
            checked=self._checked,
            complete=complete(number),
            kept=self._kept.steps,
            evaluating=self._evaluating,
            trained=trained,
            modal=modal_modules(model, training=False) if self._evaluating else (),
            half=self._still.half,
            sizes=self.forward.sizes,
            forwards=self.forward.calls,
            **facts,
        )
