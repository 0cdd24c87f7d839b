"""Seed state as plain data, for a checkpoint."""

from collections.abc import Mapping
from typing import Any, Final

from nissa.errors import ConfigurationError
from nissa.events import SeedSnapshot, SpanIds, Stage
from nissa.hub.plain_data import to_name
from nissa.random_ids import new_span_id
from nissa.seeds.accuracies import Baseline
from nissa.seeds.slots import SeedRecord

STATE_VERSION: Final = 1

_OF_THE_ENVIRONMENT: Final = frozenset({"accuracy", "accuracy_before", "accuracy_delta"})
"""Fields excluded from the copy: derived from the validations of the resuming process, or missing in older states."""


def state_dict(record: SeedRecord) -> dict[str, Any]:
    """Return a seed's state for a checkpoint; `restore` turns it into a record in another process."""
    snapshot = record.snapshot()
    names = [name for name in type(snapshot).__dataclass_fields__ if name not in _OF_THE_ENVIRONMENT]
    state: dict[str, Any] = {name: getattr(snapshot, name) for name in names}
    state["ids"] = {"trace_id": f"{record.ids.trace_id:032x}", "span_id": f"{record.ids.span_id:016x}"}
    state["first_root"] = f"{record.first_root:016x}"
    state["stage"] = record.stage.label
    state["previous"] = record.previous.label if record.previous else None
    state["accuracy_before"] = record.accuracy_before
    return state | {"version": STATE_VERSION, "history": [list(entry) for entry in record.history]}


def restore(state: object) -> SeedRecord:
    """Return the record saved by `state_dict`, as the next attempt of the same life in the same trace.

    Raises:
        ConfigurationError: The state has another version or another type, or is incomplete.
    """
    if not isinstance(state, Mapping) or state.get("version") != STATE_VERSION:
        raise ConfigurationError(
            f"This is not a seed state of version {STATE_VERSION}; pass what Seed.state_dict() returned, unchanged."
        )
    try:
        names = [name for name in SeedSnapshot.__dataclass_fields__ if name not in _OF_THE_ENVIRONMENT]
        fields = {name: state[name] for name in names}
        fields["ids"] = SpanIds(_identity(state["ids"]["trace_id"], 128), new_span_id())
        fields["first_root"] = _identity(state["first_root"], 64)
        fields["stage"] = Stage.parse(state["stage"])
        fields["previous"] = None if state["previous"] is None else Stage.parse(state["previous"])
        fields["history"] = [(str(label), int(at)) for label, at in state["history"]]
        fields["attempt"] = state["attempt"] + 1
        before = state.get("accuracy_before")
        if before is not None:
            fields["start"] = Baseline(float(before))
        return SeedRecord(**_checked(fields))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"The seed state is incomplete or damaged: {error!r}.") from error


def _identity(text: str, bits: int) -> int:
    value = int(text, 16)
    if not 0 < value < 2**bits:
        raise ValueError(f"{text!r} is not an id of {bits} bits")
    return value


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(fields["seed_id"], str) or not fields["seed_id"]:
        raise ValueError("'seed_id' is not text")
    for name in ("seed_id", "env_id", "slot_id", "blueprint_id"):
        fields[name] = to_name(fields[name])
    for name in ("attempt", "germinated_at", "stage_since", "epochs_total", "epochs_in_stage", "isolation_violations"):
        if not _is_count(fields[name]):
            raise ValueError(f"{name!r} is not a whole number")
    return fields


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
