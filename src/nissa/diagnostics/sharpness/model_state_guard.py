"""Leaves a model as it was found, whatever happens meanwhile."""

import sys
from contextlib import ExitStack
from time import perf_counter
from typing import TYPE_CHECKING, Self

import torch
from torch.nn.parallel import DistributedDataParallel

from nissa.diagnostics.sharpness.random_states import RandomStates

if TYPE_CHECKING:
    from torch import Tensor, nn


class ModelStateGuard:
    """Within it, a model is in evaluation mode, has no gradients, and runs uncompiled and on this rank alone.

    Afterwards weights, buffers, gradients, modes, ``requires_grad`` and random states are what they were: all are
    restored by copy or by reference, never by taking back what was added.

    Args:
        model: Whose loss is evaluated.
        others: Parameters that may move besides the model's.
    """

    def __init__(self, model: "nn.Module", others: "list[Tensor]") -> None:
        self.parameters = list({id(each): each for each in [*model.parameters(), *others]}.values())
        self.modules = list(model.modules())
        self.begun = perf_counter()
        self._exits = ExitStack()
        # A plain dictionary, unlike a set, leaves the order to the model.
        self.random_states = RandomStates(dict.fromkeys(each.device for each in self.parameters))

    def __enter__(self) -> Self:
        # Writing through `data` leaves alone the versions by which autograd knows that a weight was changed.
        self.weights = [each.data for each in self.parameters]
        self.kept = [each.clone() for each in self.weights]
        self._gradients = [(each, each.grad, each.requires_grad) for each in self.parameters]
        self._buffers = [
            (module, name, buffer)
            for module in self.modules
            for name, buffer in module._buffers.items()  # noqa: SLF001 - so that they can be exchanged
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
            module.training = False  # train() may be overridden, and do more than that
        for parameter in self.parameters:
            parameter.grad = None
        # A graph that is still to be gone back through may need the very buffers, unwritten.
        stand_ins = {id(buffer): buffer.clone() for _, _, buffer in self._buffers}
        for module, name, buffer in self._buffers:
            module._buffers[name] = stand_ins[id(buffer)]  # noqa: SLF001 - see above
        for wrapper in self._forwards:
            # Its forward pass talks to other ranks, which may need another number of evaluations.
            wrapper.__dict__["forward"] = wrapper.module.forward
        if "torch._dynamo.eval_frame" in sys.modules:
            # What is compiled for the user's weights must not be compiled again for ours.
            self._exits.enter_context(torch.compiler.set_stance("force_eager"))

    def __exit__(self, *error: object) -> None:
        try:
            self._restore()
        finally:
            self._exits.close()

    def _restore(self) -> None:
        self.put_back()
        torch.clear_autocast_cache()  # it may hold weights that have moved
        for wrapper in self._forwards:
            wrapper.__dict__.pop("forward", None)
        for parameter, gradient, required in self._gradients:
            parameter.requires_grad_(required)
            parameter.grad = gradient
        for module, name, buffer in self._buffers:
            module._buffers[name] = buffer  # noqa: SLF001 - see above
        for module in self._training:
            module.training = True
        self.random_states.restore()

    def put_back(self) -> None:
        """Give all parameters the values that they had."""
        torch._foreach_copy_(self.weights, self.kept)
