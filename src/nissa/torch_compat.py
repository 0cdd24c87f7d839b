"""Names of torch that are not public. No other module of Nissa uses one.

Each is used because torch has no public name for it. Where a release lacks one, its function returns what the docstring
calls the fallback. Tests use all of them with the oldest and the newest release that Nissa supports.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module
from torch.utils.data import dataloader as _dataloader

# One kernel launch for many tensors. torch's own optimizers and `torch.nn.utils.get_total_norm` are made of them.
foreach_add = torch._foreach_add
foreach_clamp_min_ = torch._foreach_clamp_min_
foreach_copy_ = torch._foreach_copy_
foreach_div_ = torch._foreach_div_
foreach_norm = torch._foreach_norm
foreach_sub_ = torch._foreach_sub_

BATCH_ITERATOR: type = getattr(_dataloader, "_BaseDataLoaderIter", object)
"""Base class of the iterators of a ``DataLoader``; fallback: ``object``, which none is an instance of alone."""


# Optimizers and scalers.


def step_pre_hooks(optimizer: torch.optim.Optimizer) -> Mapping[int, Any]:
    """Return the hooks that run before ``step()``, in their order; fallback: none."""
    found: Mapping[int, Any] = getattr(optimizer, "_optimizer_step_pre_hooks", {})
    return found


def runs_step_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimizer was initialised by its base class, so that its step hooks run."""
    return "_optimizer_step_pre_hooks" in vars(optimizer)


def loss_scale(scaler: Any) -> Tensor | None:
    """Return the loss scale of a ``GradScaler`` on its device; fallback: None, as before its first use."""
    found: Tensor | None = getattr(scaler, "_scale", None)
    return found


def is_unscaled(scaler: Any, optimizer: torch.optim.Optimizer) -> bool:
    """Return whether a scaler has divided an optimizer's gradients since its last step; fallback: False."""
    stage = _state(scaler, optimizer).get("stage")
    return stage is not None and stage.name != "READY"


def found_infs(scaler: Any, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the ``found_inf`` that a scaler stores for an optimizer, one per device; fallback: none."""
    return list(_state(scaler, optimizer).get("found_inf_per_device", {}).values())


def _state(scaler: Any, optimizer: torch.optim.Optimizer) -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(scaler, "_per_optimizer_states", {}).get(id(optimizer), {})
    return found


# Modules.


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """Return the buffers of a module itself; the dictionary may be changed."""
    return module._buffers


def is_initialised(module: nn.Module) -> bool:
    """Return whether ``nn.Module.__init__`` has run."""
    return "_parameters" in vars(module)


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the module behind the wrapper of ``torch.compile``, or the module itself; fallback: the wrapper."""
    inner: nn.Module = getattr(model, "_orig_mod", model)
    return inner


def is_fsdp1(module: nn.Module) -> bool:
    """Return whether ``FullyShardedDataParallel`` wraps a module; checked by names, since importing it takes time."""
    return type(module).__name__ == "FullyShardedDataParallel" or hasattr(module, "_fsdp_wrapped_module")


def contains_compiled(model: nn.Module) -> bool:
    """Return whether a model is or contains the wrapper of ``torch.compile``."""
    return any("_orig_mod" in each._modules for each in model.modules())


def is_compiled_in_place(model: nn.Module) -> bool:
    """Return whether ``model.compile()`` was called; fallback: False."""
    return getattr(model, "_compiled_call_impl", None) is not None


class ModuleTree:
    """Modules of a model with the names of their children and parameters, to detect cheaply that none of these changed.

    It refers to modules weakly and to parameters by their ids: an id that is used again, at the same place, has the same name.
    Only models whose ``named_parameters`` is that of torch can be compared; `unchanged` is always False for others.
    """

    def __init__(self, model: nn.Module) -> None:
        kind = type(model)
        own = (kind.named_parameters, kind.named_modules) == (nn.Module.named_parameters, nn.Module.named_modules)
        self._modules = [(weakref.ref(module), _members(module)) for module in model.modules()] if own else []

    @property
    def unchanged(self) -> bool:
        """Whether every module still has the same members."""
        for reference, members in self._modules:
            module = reference()
            if module is None or _members(module) != members:
                return False
        return bool(self._modules)


def _members(module: nn.Module) -> list[object]:
    children, parameters = module._modules, module._parameters
    return [*children, *parameters, *map(id, children.values()), *map(id, parameters.values())]


def has_forward_hooks(model: nn.Module) -> bool:
    """Return whether hooks run in the forward pass of a model, those of all modules included; ours only observe."""
    names = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
    return any(getattr(_module, name, ()) for name in names) or any(
        not getattr(hook, "observes_only", False)
        for each in model.modules()
        for hook in (*each._forward_hooks.values(), *each._forward_pre_hooks.values())
    )


# Tensors.


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place since it was made; fallback: 0, as if never."""
    found: int = getattr(tensor, "_version", 0)
    return found


def is_traced() -> bool:
    """Return whether ``torch.jit.trace`` records operations; fallback: False."""
    found: bool = getattr(torch._C, "_get_tracing_state", lambda: None)() is not None
    return found


def is_transformed(tensor: Tensor) -> bool:
    """Return whether a tensor belongs to a transform of ``torch.func`` and must not outlive it; fallback: False."""
    functorch = getattr(torch._C, "_functorch", None)
    found: bool = getattr(functorch, "is_functorch_wrapped_tensor", lambda _: False)(tensor)
    return found


def after_backward(call: Callable[[], None]) -> bool:
    """Call a function at the end of the backward pass that is running; return whether it will be; fallback: False."""
    engine = getattr(torch.autograd.Variable, "_execution_engine", None)
    queue = getattr(engine, "queue_callback", None)
    if queue is None:
        return False
    queue(call)
    return True


# Process groups and data loaders.


def default_store() -> Any:
    """Return the store of the default process group; it has one."""
    from torch.distributed import distributed_c10d  # noqa: PLC0415 - a process without groups need not import it

    return distributed_c10d._get_default_store()


def own_connection(store: Any, seconds: float) -> Any:
    """Return a client of the same store with a connection and a timeout of its own; fallback: the store itself.

    A client of a ``TCPStore`` serves one call at a time, so that a thread that waits for a key delays all others.
    """
    from datetime import timedelta  # noqa: PLC0415 - only with several ranks

    clone = getattr(store, "clone", None)
    if clone is None:
        return store
    client = clone()
    client.set_timeout(timedelta(seconds=seconds))
    return client


def running_wrapper() -> nn.Module | None:
    """Return the ``DistributedDataParallel`` whose forward pass is running; fallback: None."""
    found: nn.Module | None = getattr(nn.parallel.DistributedDataParallel, "_active_ddp_module", None)
    return found


def join_state(wrapper: nn.Module) -> object:
    """Return an object that is replaced when ``Join`` begins and ends for a wrapper; fallback: None."""
    return getattr(wrapper, "_join_config", None)


def replicate_group(module: nn.Module) -> Any:
    """Return the process group over which composable ``replicate()`` replicates a module; fallback: None."""
    import sys  # noqa: PLC0415 - only with several ranks

    composable = sys.modules.get("torch.distributed._composable.replicate")
    if composable is None:
        return None
    state = composable.replicate.state(module)
    wrapper = None if state is None else getattr(state, "_ddp_weakref", lambda: None)()
    return None if wrapper is None else wrapper.process_group


def device_types(group: Any) -> Sequence[str]:
    """Return the types of the devices that a process group supports; fallback: the CPU's."""
    return [each.type for each in getattr(group, "_device_types", ())] or ["cpu"]


def dataset_of(iterator: object) -> object:
    """Return the dataset of a data loader's iterator; fallback: None."""
    return getattr(iterator, "_dataset", None)
