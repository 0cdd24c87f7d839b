"""Context manager that restores the state of a model, also after an exception."""

import sys
from contextlib import ExitStack
from time import perf_counter
from typing import TYPE_CHECKING, Self

import torch
from torch.nn.parallel import DistributedDataParallel

from nissa.diagnostics.sharpness.random_states import RandomStates
from nissa.torch_compat import buffers_of, foreach_copy_

if TYPE_CHECKING:
    from torch import Tensor, nn


class ModelStateGuard:
    """Context in which a model is in evaluation mode, has no gradients, and runs uncompiled on this rank alone.

    On exit, weights, buffers, gradients, modes, ``requires_grad`` and random states are restored exactly: from copies or by
    reference, never by subtracting a perturbation.

    Args:
        model: Model whose loss is evaluated.
        others: Parameters that may change in addition to those of the model.
    """

    def __init__(self, model: "nn.Module", others: "list[Tensor]") -> None:
        self.parameters = list({id(each): each for each in [*model.parameters(), *others]}.values())
        self.modules = list(model.modules())
        self.begun = perf_counter()
        self._exits = ExitStack()
        # A dictionary keeps the order of the model's devices; a set would not.
        self.random_states = RandomStates(dict.fromkeys(each.device for each in self.parameters))

    def __enter__(self) -> Self:
        # Writing through `data` does not change the version counters with which autograd detects modified weights.
        self.weights = [each.data for each in self.parameters]
        self.kept = [each.clone() for each in self.weights]
        self._gradients = [(each, each.grad, each.requires_grad) for each in self.parameters]
        self._buffers = [
            (module, name, buffer)
            for module in self.modules
            for name, buffer in buffers_of(module).items()
            if buffer is not None
        ]
        self._training = [module for module in self.modules if module.training]
        self._forwards = [module for module in self.modules if isinstance(module, DistributedDataParallel)]
        try:
            self._prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _prepare(self) -> None:
        for module in self._training:
            module.training = False  # eval() calls train(), which may be overridden with side effects
        for parameter in self.parameters:
            parameter.grad = None
        # Replace buffers by copies: a pending backward pass may need the original ones unmodified.
        stand_ins = {id(buffer): buffer.clone() for _, _, buffer in self._buffers}
        for module, name, buffer in self._buffers:
            buffers_of(module)[name] = stand_ins[id(buffer)]
        for wrapper in self._forwards:
            # DDP's forward pass communicates with other ranks, whose number of evaluations may differ.
            wrapper.__dict__["forward"] = wrapper.module.forward
        if "torch._dynamo.eval_frame" in sys.modules:
            # Run eagerly, so that the measurement does not trigger recompilations of the user's model.
            self._exits.enter_context(torch.compiler.set_stance("force_eager"))

    def __exit__(self, *error: object) -> None:
        try:
            self._restore()
        finally:
            self._exits.close()

    def _restore(self) -> None:
        self.put_back()
        torch.clear_autocast_cache()  # it may hold casts of perturbed weights
        for wrapper in self._forwards:
            wrapper.__dict__.pop("forward", None)
        for parameter, gradient, required in self._gradients:
            parameter.requires_grad_(required)
            parameter.grad = gradient
        for module, name, buffer in self._buffers:
            buffers_of(module)[name] = buffer
        for module in self._training:
            module.training = True
        self.random_states.restore()

    def put_back(self) -> None:
        """Restore the values of all parameters."""
        foreach_copy_(self.weights, self.kept)
