"""How large parameters are, and how far a step moves them."""

from typing import TYPE_CHECKING

import torch

from nissa.distributed.sharding import locals_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class Weights:
    """Norms of parameters before a step, and after it those of their change.

    Args:
        parameters: All that the step may use.
        updates: Keep a copy of them, to see how far they move.
    """

    def __init__(self, parameters: "Sequence[torch.Tensor]", *, updates: bool) -> None:
        parameters, here = _here(parameters)
        self._norms = dict(zip(map(id, parameters), _norms(here), strict=True))
        self._copies = (
            {id(parameter): part.clone() for parameter, part in zip(parameters, here, strict=True)} if updates else {}
        )

    def squares(self, parameters: "Sequence[torch.Tensor]") -> torch.Tensor:
        """Return the squared norm of each parameter's part on this rank, and that of its change where it was kept.

        Args:
            parameters: Those that the step used, all on one device; called once, after the step.

        Returns:
            float64 of shape ``(len(parameters), 1)``, or ``(len(parameters), 2)`` with the change.
        """
        columns = [torch.stack([self._norms[id(parameter)] for parameter in parameters])]
        if self._copies:
            before = [self._copies.pop(id(parameter)) for parameter in parameters]
            # In place, since the copies are ours and the step is over.
            torch._foreach_sub_(before, _here(parameters)[1])
            columns.append(torch.stack(_norms(before)))
        return torch.stack(columns, dim=1).square()


def _here(parameters: "Sequence[torch.Tensor]") -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the parameters that this rank has anything of, and what it has."""
    parts = locals_of([(parameter, parameter) for parameter in parameters])
    pairs = [(whole, part.tensor) for whole, part in zip(parameters, parts, strict=True) if part.tensor is not None]
    return [whole for whole, _ in pairs], [part for _, part in pairs]


def _norms(tensors: "Sequence[torch.Tensor]") -> list[torch.Tensor]:
    """Return L2 norms as float64 scalars; NaN and infinity pass through."""
    reals = [torch.view_as_real(each.resolve_conj()) if each.is_complex() else each for each in tensors]
    # What `torch.nn.utils.get_total_norm` is made of; one launch for many tensors.
    return list(torch._foreach_norm(reals, 2, dtype=torch.float64)) if reals else []  # noqa: SLF001
