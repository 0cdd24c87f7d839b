"""Order-independent, mergeable sums, which bound the memory of analytics."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(slots=True)
class Mean:
    """Mergeable mean.

    Args:
        count: Number of values.
        total: Sum of the values.
    """

    count: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        """Add a value."""
        self.count += 1
        self.total += value

    @property
    def value(self) -> float | None:
        """Mean of the values; None without values."""
        return self.total / self.count if self.count else None


class Sums:
    """Base class of dataclasses of counts, means and counts by name, which can be added, subtracted and saved."""

    def merge(self, other: Self, sign: int = 1) -> None:
        """Add the sums of another object; subtract them with ``sign=-1``."""
        for name in _names(self):
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Mean):
                mine.count += sign * theirs.count
                mine.total += sign * theirs.total
            elif isinstance(mine, dict):
                for key, value in theirs.items():
                    mine[key] = mine.get(key, 0) + sign * value
            else:
                setattr(self, name, mine + sign * theirs)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums as plain data."""
        return {name: _plain(getattr(self, name)) for name in _names(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the sums saved by `state_dict`.

        Raises:
            KeyError: An entry is missing.
            TypeError: An entry has the wrong type.
            ValueError: An entry cannot be converted to a number.
        """
        empty = cls()
        for name in _names(empty):
            before, saved = getattr(empty, name), state[name]
            if isinstance(before, Mean):
                setattr(empty, name, Mean(int(saved["count"]), float(saved["total"])))
            elif isinstance(before, dict):
                setattr(empty, name, {str(key): int(value) for key, value in saved.items()})
            else:
                setattr(empty, name, int(saved))
        return empty


def _names(sums: Sums) -> list[str]:
    return [field.name for field in fields(sums)]  # type: ignore[arg-type]


def _plain(value: object) -> object:
    if isinstance(value, Mean):
        return {"count": value.count, "total": value.total}
    return dict(value) if isinstance(value, dict) else value
