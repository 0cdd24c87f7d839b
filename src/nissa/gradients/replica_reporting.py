"""Reports about the weights of a step, once its numbers are on the host; runs on the worker thread."""

import struct
from typing import TYPE_CHECKING

import numpy as np

from nissa.distributed.replica_reports import Detail, Summary, summarised
from nissa.gradients.phases import BACKWARD, OPTIMIZER
from nissa.gradients.skips import total
from nissa.gradients.step_metadata import RATE, SIGNAL, SKIPPED_CALLS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nissa.gradients.capture import Statistics
    from nissa.gradients.replica_probe import ReplicaRow
    from nissa.gradients.step_metadata import StepMetadata

__all__ = ["publish"]

_BATCH = f"{SIGNAL}batch"


def publish(
    metadata: "StepMetadata", numbers: dict[str, float], lanes: "NDArray[np.int64]", found: "Statistics | None"
) -> None:
    """Report a step to the ranks that should have the same weights.

    Args:
        metadata: Metadata of the step; it has a `ReplicaRow`.
        numbers: Scalars of the step.
        lanes: Digests of the weights, in the order of the names of the row.
        found: Gradient statistics; None if the step was not sampled.
    """
    row = metadata.replicas
    if row is None:
        return
    hexadecimal = [f"{each:016x}" for each in lanes.view(np.uint64).tolist()]
    norms = {} if found is None else dict(zip(found.names, found.moments.norm.tolist(), strict=True))
    for channel in row.channels:
        cohort = channel.cohort
        detail = None
        if row.names:
            detail = _detail(metadata, row, numbers, [(row.names[at], hexadecimal[at]) for at in cohort.rows], norms)
        summary = Summary(
            key=row.key,
            step=metadata.step - total(numbers, SKIPPED_CALLS),
            at=metadata.time_unix_nano,
            behind=_behind(metadata),
            weights=None if detail is None else summarised(detail.names, detail.digests),
            batch=_bits(numbers[_BATCH]) if cohort.data and _BATCH in numbers else None,
        )
        if detail is not None or summary.batch is not None:
            row.thread.publish(channel, summary, detail)


def _detail(
    metadata: "StepMetadata",
    row: "ReplicaRow",
    numbers: dict[str, float],
    digests: list[tuple[str, str]],
    norms: dict[str, float],
) -> Detail:
    rates = {int(name.removeprefix(RATE)): value for name, value in numbers.items() if name.startswith(RATE)}
    return Detail(
        names=[name for name, _ in digests],
        digests=[digest for _, digest in digests],
        norms=[_finite(norms.get(name.partition("\t")[0])) for name, _ in digests],
        rates=[rates.get(group) for group in range(max(rates, default=-1) + 1)],
        settings=row.settings,
        skipped=metadata.unbegun + total(numbers, SKIPPED_CALLS),
        clip=metadata.clip_limit,
        forwards=row.forwards,
        wrapped=row.wrapped,
        received=row.received,
    )


def _behind(metadata: "StepMetadata") -> float | None:
    """Return the seconds from the beginning of the backward pass to the end of the step; None if it was not observed."""
    phases = metadata.phases
    return phases[BACKWARD] + phases.get(OPTIMIZER, 0.0) if BACKWARD in phases else None


def _finite(norm: float | None) -> float | None:
    return norm if norm is not None and np.isfinite(norm) else None


def _bits(value: float) -> str:
    return struct.pack(">d", value).hex()
