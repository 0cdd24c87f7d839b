"""Which parameters' gradients are looked at, and what they are called."""

import logging
from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from nissa.errors import near_misses

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

_logger = logging.getLogger("nissa")

_WRAPPERS: Final = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Names that torch's own wrappers insert into parameter paths; they say nothing about the network."""


def clean_name(name: str) -> str:
    """Return a parameter's path without the parts that wrappers (compile, DDP, checkpointing) inserted."""
    parts = name.split(".")
    # "module" may be a network's own name further down; wrappers of whole models come first.
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts.pop(0)
    return ".".join(part for part in parts if part not in _WRAPPERS or part == "module") or name


def names_of(model: "torch.nn.Module") -> "list[tuple[str, torch.nn.Parameter]]":
    """Return each parameter once with its name, cleaned where that leaves it a name of its own."""
    parameters = list(model.named_parameters())
    owners = Counter(clean_name(name) for name, _ in parameters)
    cleaned = ((clean_name(name), name, parameter) for name, parameter in parameters)
    return [(short if owners[short] == 1 else name, parameter) for short, name, parameter in cleaned]


class Selection:
    """Names the parameters of a model, and keeps those that the configuration chose.

    Args:
        patterns: Globs over parameter names, or ``"all"``.
    """

    def __init__(self, patterns: "Sequence[str] | str") -> None:
        self._patterns = () if isinstance(patterns, str) else tuple(patterns)
        self._everything = isinstance(patterns, str)

    def chosen(self, name: str) -> bool:
        """Whether a parameter is looked at."""
        return self._everything or any(fnmatchcase(name, pattern) for pattern in self._patterns)

    def warn_unmatched(self, names: "Sequence[str]") -> list[str]:
        """Log each pattern that matches no name so far, with near misses; return those patterns."""
        unmatched = [pattern for pattern in self._patterns if not any(fnmatchcase(name, pattern) for name in names)]
        for pattern in unmatched:
            close = near_misses(pattern.strip("*."), names) or list(names[:3])
            _logger.warning(
                "gradients.layers: %r matches none of the model's %d parameters so far; there are for example: %s.",
                pattern,
                len(names),
                ", ".join(close) or "none",
            )
        return unmatched

    def gradients(
        self, model: "torch.nn.Module", optimizer: "torch.optim.Optimizer"
    ) -> "Iterator[tuple[str, torch.Tensor]]":
        """Yield name and gradient of each chosen parameter that the optimizer is about to use, each once.

        The network is looked at afresh: parameters may have joined or left since the last call. Frozen and unused
        parameters have no gradient and are absent.
        """
        names = {id(parameter): name for name, parameter in names_of(model)}
        seen: set[int] = set()
        for number, group in enumerate(optimizer.param_groups):
            for index, parameter in enumerate(group["params"]):
                if parameter.grad is None or id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                name = names.get(id(parameter), f"optimizer.group{number}.{index}")
                if self.chosen(name):
                    yield name, _unscaled(parameter.grad, optimizer)


def _unscaled(gradient: "torch.Tensor", optimizer: "torch.optim.Optimizer") -> "torch.Tensor":
    """Return a gradient as the optimizer will use it: a fused one is handed the loss scale, and divides by it itself."""
    scale: torch.Tensor | None = getattr(optimizer, "grad_scale", None)
    if scale is None:
        return gradient
    return gradient / scale.to(gradient.device, non_blocking=True)
