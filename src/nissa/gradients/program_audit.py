"""Facts and values of a watched program for the contracts, collected on the training thread.

A few checks run at every step, since a parameter that has a gradient at every second step would never have one at every tenth.
They cost about a microsecond. The others walk the network or start work on a device, and run at a few steps: the first ones,
every tenth until step 200, then every hundredth. Nothing waits for a device, and no reference to model or optimizer is kept.
"""

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import torch

from nissa.gradients.forward_probe import ForwardProbe, modal_modules
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
_UNSEEN: Final = 2
"""Steps without a forward pass after which it is reported that none is seen."""

_EVALUATING: Final = 20
"""Steps in evaluation mode after which facts are collected at once."""


def observed(step: int) -> bool:
    """Whether all facts are collected at a step of a watch, counted from 0."""
    return step in _FIRST or step % (_OFTEN if step <= _UNTIL else _RARELY) == 0


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
        self._checked = self._evaluating = 0
        self._trained = False
        self._facts: ProgramFacts | None = None
        self._signals: dict[str, torch.Tensor] = {}
        self.forward.arm()

    def before(self, model: torch.nn.Module | None, optimizer: torch.optim.Optimizer) -> None:
        """Collect the facts of a step that is about to happen; its gradients exist now."""
        with self._error_boundary.guard("contracts"), torch.no_grad():
            self._facts, self._signals = None, {}
            if model is not None:
                self._check(uncompiled(model), optimizer)

    def after(self, optimizer: torch.optim.Optimizer) -> None:
        """Compare the weights after a step with those before it, and prepare the next step."""
        with self._error_boundary.guard("contracts"), torch.no_grad():
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
            self._observe(model, optimizer, number, carried, trained=trained)

    def _observe(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        number: int,
        carried: dict[str, torch.Tensor],
        *,
        trained: bool,
    ) -> None:
        parameters, changed = self._parameters.observe(model, optimizer)
        matrices, initial = self._initial.read(model) if number == 0 else ((), {})
        self._signals = carried | changed | initial | self.forward.take() | self._still.before(optimizer)
        if number == _UNSEEN and (reason := self.unchecked) is not None:
            _logger.info("Contracts about inputs, outputs and modes are not checked: %s.", reason)
        self._facts = ProgramFacts(
            checked=self._checked,
            kept=self._kept.steps,
            evaluating=self._evaluating,
            trained=trained,
            modal=modal_modules(model, training=False) if self._evaluating else (),
            half=self._still.half,
            matrices=matrices,
            sizes=self.forward.sizes,
            forwards=self.forward.calls,
            **parameters,
        )
