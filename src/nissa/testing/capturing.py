"""Capture of the runs that code under test starts: their telemetry stays in memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import time_ns
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from nissa.testing.telemetry import Collected, Telemetry, in_memory

if TYPE_CHECKING:
    from nissa.config import TelemetryConfig
    from nissa.hub.hub import NissaHub

_WAIT_SECONDS: Final = 10.0
_ROWS: Final = 4_096


@contextmanager
def capture(*, clock: Callable[[], int] = time_ns) -> "Iterator[Telemetry]":
    """Keep the telemetry of every run that is started meanwhile in memory: no files, no network.

    The code under test is not changed, and its arguments of `nissa.start` and the ``OTEL_*`` variables do not matter for the
    destination. So that nothing depends on the speed of the machine, a validation waits up to 10 seconds for the
    gradients of its step, no sample is dropped, and no overhead budget thins the sampling. A run that is still active at
    the end is ended.

    Args:
        clock: Wall clock of the runs, nanoseconds since the Unix epoch; a `FakeClock` makes times exact.

    Example:
        >>> import nissa
        >>> from nissa.testing import capture
        >>> with capture() as telemetry:
        ...     with nissa.start(console__enabled=False) as run:
        ...         run.germinate("seed-1", blueprint="conv").cull(reason="no gain")
        ...     telemetry.spans.named("seed.culled").one().attributes["nissa.blueprint.id"]
        'conv'
    """
    import nissa  # noqa: PLC0415 - imported when a test needs it
    from nissa.otel.export.memory_lines import MemoryLines  # noqa: PLC0415 - OpenTelemetry
    from nissa.run.start import Capture, captures  # noqa: PLC0415 - torch

    memory, collected = MemoryLines(), Collected()
    name = f"nissa.testing-{len(captures) + 1}" if captures else "nissa.testing"
    hubs: WeakSet[NissaHub] = WeakSet()

    def attach(hub: "NissaHub") -> None:
        if hub not in hubs:
            hub.add_backend(collected, name)
            hubs.add(hub)

    before = nissa.current_run()
    attach(nissa.get_hub())
    captured = Capture(memory=memory, adjust=_deterministic, attach=attach, clock=clock)
    captures.append(captured)
    try:
        yield Telemetry(lambda signal: in_memory(memory.lines[signal]), collected)  # type: ignore[index]
    finally:
        run = nissa.current_run()
        if run is not None and run is not before:
            run.close()
        captures.remove(captured)
        for hub in hubs:
            if name in hub.backends:
                hub.remove_backend(name)


def _deterministic(config: "TelemetryConfig") -> "TelemetryConfig":
    limits = config.limits.model_copy(
        update={
            "validation_wait_seconds": max(config.limits.validation_wait_seconds, _WAIT_SECONDS),
            "readback_queue_size": _ROWS,
        }
    )
    return config.model_copy(update={"limits": limits, "overhead_budget": None})
