"""Forward passes of a watched model: modes, and a few numbers about inputs and outputs for contracts.

The hooks are registered once, when the watch begins, and never toggled, because each change of hooks makes ``torch.compile``
compile again. They are not registered on a model that is compiled, and do nothing while it is being compiled later; contracts
that need them are then not judged.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from nissa.gradients.hooks import recording
from nissa.gradients.output_probe import output_signals
from nissa.torch_compat import (
    contains_compiled,
    is_compiled_in_place,
    is_traced,
    is_transformed,
    running_wrapper,
    uncompiled,
)

if TYPE_CHECKING:
    from nissa.hub.error_boundary import ErrorBoundary

_READ: Final = 4_096
"""Elements of an input that are read."""

_MOST_MODAL: Final = 20


_DROPOUTS: Final = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
_BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_MULTIPLYING: Final = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.RNNBase,
)

SHARED: Final = "another watch of the model has the hooks"
"""Reason why a further watch of a model has no hooks of its own."""

_PROBED: "Final[weakref.WeakSet[nn.Module]]" = weakref.WeakSet()
"""Models with hooks; several optimizers of one model share those of the first."""


class _Hook:
    """Hook that leaves no trace in copies: a pickled or copied model has a hook of the standard library that does nothing.

    Otherwise a model that was saved as a whole could not be loaded where Nissa is not installed.

    Args:
        call: Called with the arguments of the hook.
        error_boundary: Contains its errors, which would otherwise end the forward pass.
        needed: Whether the hook has anything to do in this pass.
    """

    observes_only = True

    def __init__(
        self, call: Callable[..., None], error_boundary: "ErrorBoundary", needed: Callable[[], bool] | None = None
    ) -> None:
        self._call = call
        self._error_boundary = error_boundary
        self._needed = needed

    def __call__(self, *arguments: Any) -> None:
        if torch.compiler.is_compiling() or (self._needed is not None and not self._needed()):
            return
        if is_traced() or recording():
            return
        with self._error_boundary.guard("contracts"):
            self._call(*arguments)

    @property
    def __name__(self) -> str:  # read by torch.jit.script() alone, which would compile the hook
        raise AttributeError(
            "torch.jit.script() cannot compile a model that Nissa watches. Close the watch before, or switch contracts off with "
            "diagnostics.contracts: false."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (contextlib.nullcontext(), "__exit__")


class ForwardProbe:
    """Hooks on a model.

    Args:
        model: The model; a compiled one gets no hooks.
        error_boundary: Contains errors of the hooks.
        hooks: Whether hooks may be registered.

    Attributes:
        absent: Reason why there are no hooks; None with hooks.
        calls: Number of forward passes; None without hooks.
        sizes: Number of samples and classes of the captured outputs.
        passes: Number of forward passes with gradients.
        received: Whether an input of a captured pass required a gradient, as behind another stage of a pipeline.
    """

    def __init__(self, model: nn.Module, error_boundary: "ErrorBoundary", *, hooks: bool = True) -> None:
        self.calls: int | None = None
        self.sizes = (0, 0)
        self.passes, self.received = 0, False
        self._wrapper: weakref.ref[nn.Module] | None = None
        self._error_boundary = error_boundary
        self._without_gradient = [0, 0]
        self._armed = self._waits = False
        self._signals: dict[str, Tensor] = {}
        self._handles: list[Any] = []
        self._model: weakref.ref[nn.Module] = weakref.ref(model)
        self.absent = _obstacle(model) if hooks else "the watch registers no hooks (hooks=False)"
        if self.absent is None:
            self._register(model)

    @property
    def model(self) -> nn.Module | None:
        """The model; None if it was freed."""
        return self._model()

    @property
    def wrapper(self) -> nn.Module | None:
        """The ``DistributedDataParallel`` around the newest pass with gradients; None without one."""
        return None if self._wrapper is None else self._wrapper()

    @property
    def without_gradient(self) -> tuple[int, int] | None:
        """Numbers of passes without gradients since the last step, in training and in evaluation mode; None without hooks."""
        return None if self.calls is None else (self._without_gradient[0], self._without_gradient[1])

    def arm(self) -> None:
        """Capture the next forward pass that computes gradients."""
        self._armed = True

    def step_ended(self) -> None:
        """Begin to count anew after a step."""
        if self._waits and self.calls:
            self._hook_first_layer()
        self._without_gradient[:] = [0, 0]
        self._signals = {}

    def take(self) -> dict[str, Tensor]:
        """Return the values of the captured pass by name."""
        signals, self._signals = self._signals, {}
        return signals

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        model = self._model()
        if self._handles and model is not None:
            _PROBED.discard(model)
        self._handles, self._waits = [], False

    def _register(self, model: nn.Module) -> None:
        self.calls, self._waits = 0, True
        _PROBED.add(model)
        self._handles += [
            model.register_forward_pre_hook(_Hook(self._entered, self._error_boundary), with_kwargs=True),
            model.register_forward_hook(_Hook(self._left, self._error_boundary, self._is_armed)),
        ]

    def _hook_first_layer(self) -> None:
        """Register the hook of the first layer, once the forward pass of the model was seen.

        ``torch.compile`` ignores hooks of a module that has none when it is compiled. Were this one registered with the others,
        further hooks of that layer would compile the model again.
        """
        model, self._waits = self._model(), False
        first = None if model is None else _first_layer(model)
        if first is not None:
            hook = _Hook(self._first_input, self._error_boundary, self._is_armed)
            self._handles.append(first.register_forward_pre_hook(hook))

    def _is_armed(self) -> bool:
        return self._armed and torch.is_grad_enabled()

    def _entered(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.calls = (self.calls or 0) + 1
        if not torch.is_grad_enabled():
            self._without_gradient[0 if module.training else 1] += 1
            return
        self.passes += 1
        wrapper = running_wrapper()
        self._wrapper = None if wrapper is None else weakref.ref(wrapper)
        if self._armed and not self._signals:
            found = first_tensor((*args, *kwargs.values()))
            if found is not None:
                self.received |= found.requires_grad
                with torch.no_grad():
                    self._signals["batch"] = _digest(found)

    def _first_input(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        found = first_tensor(args)
        if found is not None and not found.requires_grad and found.is_floating_point():
            with torch.no_grad():
                self._signals["input_rms"] = _part(found).float().square().mean().sqrt()

    def _left(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        self._armed = False
        self.sizes = (0, 0)
        found = first_tensor((output,))
        if found is not None and found.requires_grad and found.is_floating_point() and found.dim() > 0:
            values = found.detach()
            found.register_hook(lambda back: self._output_gradient(values, back))  # type: ignore[no-untyped-call]

    def _output_gradient(self, values: Tensor, gradient: Tensor) -> None:
        if torch.compiler.is_compiling() or recording() or "probability" in self._signals:
            return
        with self._error_boundary.guard("contracts"), torch.no_grad():
            signals, self.sizes = output_signals(values, gradient)
            self._signals |= signals


def _obstacle(model: nn.Module) -> str | None:
    """Return the reason why a model gets no hooks; None if it gets them."""
    if isinstance(model, torch.jit.ScriptModule):
        return "the model is scripted, and its hooks would have to be scripted with it"
    if contains_compiled(model) or is_compiled_in_place(model):
        return "the model is compiled, and hooks would compile it again"
    return SHARED if model in _PROBED else None


def first_tensor(found: Iterable[Any]) -> Tensor | None:
    """Return the first tensor in nested lists, tuples, dictionaries and data classes such as those of transformers."""
    for each in found:
        if isinstance(each, Tensor):
            return each if type(each) in {Tensor, nn.Parameter} and not is_transformed(each) else None
        if isinstance(each, Mapping):
            named = each.get("logits")
            inner = first_tensor((named,) if isinstance(named, Tensor) else each.values())
        else:
            inner = first_tensor(each) if isinstance(each, list | tuple) else None
        if inner is not None:
            return inner
    return None


def modal_modules(model: nn.Module, *, training: bool) -> tuple[str, ...]:
    """Return the modules that the mode changes, if all of them are in that mode; at most 20."""
    found = [(name, each) for name, each in uncompiled(model).named_modules() if _is_modal(each)]
    if any(each.training is not training for _, each in found):
        return ()
    return tuple(name or type(each).__name__ for name, each in found[:_MOST_MODAL])


def _is_modal(module: nn.Module) -> bool:
    if isinstance(module, _DROPOUTS):
        return bool(module.p > 0)
    return isinstance(module, _BATCH_NORMS) and bool(module.track_running_stats)


def _first_layer(model: nn.Module) -> nn.Module | None:
    """Return the first layer with parameters, if it multiplies its input; None for a normalisation or an embedding."""
    owners = (each for each in model.modules() if any(True for _ in each.parameters(recurse=False)))
    leaves = (each for each in owners if not any(True for _ in each.children()))
    first = next(leaves, None)
    return first if isinstance(first, _MULTIPLYING) else None


def _part(values: Tensor) -> Tensor:
    """Return some elements, spread over the tensor."""
    flat = values.detach().reshape(-1) if values.is_contiguous() else values.detach()[:1].reshape(-1)
    return flat[:: max(1, flat.numel() // _READ)]


def _digest(values: Tensor) -> Tensor:
    """Return a number that is equal for equal batches, and differs for nearly all others."""
    part = _part(values)
    part = torch.view_as_real(part).reshape(-1) if part.is_complex() else part
    weights = torch.arange(1, part.numel() + 1, device=part.device, dtype=torch.float64)
    return (part.double() * weights).sum()
