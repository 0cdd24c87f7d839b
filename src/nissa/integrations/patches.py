"""Reversible replacement of attributes of foreign objects."""

from typing import Any, Final

_ABSENT: Final = object()


class Patches:
    """Attributes that were replaced, in the order of their replacement."""

    def __init__(self) -> None:
        self._replaced: list[tuple[Any, str, Any, Any]] = []

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of an object or class until `restore`."""
        self._replaced.append((owner, name, vars(owner).get(name, _ABSENT), value))
        setattr(owner, name, value)

    def restore(self) -> None:
        """Restore all attributes, newest first; one that somebody else has replaced since is left unchanged."""
        while self._replaced:
            owner, name, before, value = self._replaced.pop()
            if vars(owner).get(name, _ABSENT) is not value:
                continue
            if before is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
