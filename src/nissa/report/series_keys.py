"""Series key (environment, model, rank), and display names that contain only the parts that differ."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nissa.recordings import Process, Recording
from nissa.semconv import attributes as attr

_MOST_DIGITS: Final = 18
"""Number of digits from which a name is sorted as text."""


@dataclass(frozen=True, slots=True, order=True)
class SeriesKey:
    """Series key: environment, model and rank of a measurement; fields are empty (rank -1) if not recorded."""

    env: str = ""
    model: str = ""
    rank: int = -1

    @classmethod
    def of(cls, attributes: Mapping[str, Any], process: Process) -> "SeriesKey":
        """Return the key from the attributes of a record and the rank of its process."""
        rank = process.rank
        return cls(
            env=str(attributes.get(attr.ENV_ID, "")),
            model=str(attributes.get(attr.MODEL_NAME, "")),
            rank=-1 if rank is None else rank,
        )


class SeriesNames:
    """Display names of series keys; parts that are equal for all keys are omitted.

    Args:
        places: All series keys of a recording.
    """

    def __init__(self, places: Iterable[SeriesKey]) -> None:
        known = set(places)
        self._envs = sorted({series_key.env for series_key in known if series_key.env}, key=_natural)
        self._models = {series_key.model for series_key in known if series_key.model}
        self._ranks = {series_key.rank for series_key in known}

    @classmethod
    def of(cls, recording: Recording) -> "SeriesNames":
        """Return the display names for a recording."""
        measured = [SeriesKey.of(each.attributes, each.process) for each in recording.streams]
        measured += [SeriesKey.of(each.attributes, each.process) for each in recording.distributions]
        return cls([*measured, *(SeriesKey.of(span.attributes, span.process) for span in recording.spans)])

    @property
    def groups(self) -> list[str]:
        """Names of the environments to filter by; empty if the run has only one."""
        return [f"environment {env}" for env in self._envs] if len(self._envs) > 1 else []

    def group(self, env: object) -> str:
        """Return the name of an environment in the filter; empty if the run has only one."""
        return f"environment {env}" if env not in {None, ""} and len(self._envs) > 1 else ""

    def name(self, series_key: SeriesKey, *, rank: bool = True) -> str:
        """Return the parts of a key that differ between keys; empty if all are equal."""
        parts = [self.group(series_key.env)]
        parts += [series_key.model] if series_key.model and len(self._models) > 1 else []
        parts += [f"rank {series_key.rank}"] if rank and series_key.rank >= 0 and len(self._ranks) > 1 else []
        return " · ".join(part for part in parts if part)


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() and len(name) < _MOST_DIGITS else (1 << 62, name)
