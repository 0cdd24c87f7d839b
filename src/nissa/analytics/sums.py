"""Sums that can be added up in any order: what analytics keeps, instead of lists that grow."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(slots=True)
class Mean:
    """A mean that can be merged.

    Args:
        count: How many values.
        total: Their sum.
    """

    count: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        """Take a value."""
        self.count += 1
        self.total += value

    @property
    def value(self) -> float | None:
        """The mean; None where there is no value."""
        return self.total / self.count if self.count else None


class Sums:
    """A dataclass of counts, means and counts by name, which can be added up, saved and subtracted."""

    def merge(self, other: Self, sign: int = 1) -> None:
        """Add another's sums, or with -1 take them away."""
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
        """Return plain data."""
        return {name: _plain(getattr(self, name)) for name in _names(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return what `state_dict` saved.

        Raises:
            KeyError: Something is missing.
            TypeError: Something has another form.
            ValueError: Something is no number.
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
