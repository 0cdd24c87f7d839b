"""Where something was measured: its environment, model and rank, named as far as there is more than one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nissa.recordings import Process, Recording
from nissa.semconv import attributes as attr


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something was measured; empty where there is only one."""

    env: str = ""
    model: str = ""
    rank: int = -1

    @classmethod
    def of(cls, attributes: Mapping[str, Any], process: Process) -> "Place":
        """Return the place that attributes name."""
        rank = process.rank
        return cls(
            env=str(attributes.get(attr.ENV_ID, "")),
            model=str(attributes.get(attr.MODEL_NAME, "")),
            rank=-1 if rank is None else rank,
        )


class Places:
    """Names places: what is the same everywhere goes without saying.

    Args:
        places: All that there are.
    """

    def __init__(self, places: Iterable[Place]) -> None:
        known = set(places)
        self._envs = sorted({place.env for place in known if place.env}, key=_natural)
        self._models = {place.model for place in known if place.model}
        self._ranks = {place.rank for place in known}

    @classmethod
    def of(cls, recording: Recording) -> "Places":
        """Return the places of a recording."""
        measured = [Place.of(each.attributes, each.process) for each in recording.streams]
        measured += [Place.of(each.attributes, each.process) for each in recording.distributions]
        return cls([*measured, *(Place.of(span.attributes, span.process) for span in recording.spans)])

    @property
    def groups(self) -> list[str]:
        """The environments to choose from; none where there is only one."""
        return [f"environment {env}" for env in self._envs] if len(self._envs) > 1 else []

    def group(self, env: object) -> str:
        """Return the name of an environment to choose by, empty where there is only one."""
        return f"environment {env}" if env not in {None, ""} and len(self._envs) > 1 else ""

    def name(self, place: Place, *, rank: bool = True) -> str:
        """Return what tells a place from the others; empty where nothing does."""
        parts = [self.group(place.env)]
        parts += [place.model] if place.model and len(self._models) > 1 else []
        parts += [f"rank {place.rank}"] if rank and place.rank >= 0 and len(self._ranks) > 1 else []
        return " · ".join(part for part in parts if part)


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (1 << 62, name)
