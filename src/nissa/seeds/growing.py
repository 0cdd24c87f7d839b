"""Which parameters belong to seeds that are being grown."""

import weakref
from typing import TYPE_CHECKING

from nissa.seeds.stages import ALIVE

if TYPE_CHECKING:
    import torch

    from nissa.seeds.slots import Slots


class SeedModules:
    """Remembers the modules of seeds without keeping them alive.

    Args:
        slots: The state table's records.
    """

    def __init__(self, slots: "Slots") -> None:
        self._slots = slots
        self._modules: dict[tuple[str | None, str], weakref.ref[torch.nn.Module]] = {}

    def add(self, env_id: str | None, seed_id: str, module: "torch.nn.Module") -> None:
        """Remember a seed's module, in place of one that an earlier seed of the same name had."""
        self._modules[env_id, seed_id] = weakref.ref(module)

    def growing(self, env_id: str | None) -> list[tuple[str, frozenset[int]]]:
        """Return the slot and the ids of the parameters of each seed of an environment that is being grown.

        Seeds without a slot or without a module are absent. Those whose fate is decided are forgotten.
        """
        found = []
        for key, reference in list(self._modules.items()):
            if key[0] != env_id:
                continue
            module, record = reference(), self._slots.get(key)
            if module is None or record is None or record.stage not in ALIVE:
                self._modules.pop(key, None)
            elif record.slot_id is not None:
                found.append((record.slot_id, frozenset(map(id, module.parameters()))))
        return found
