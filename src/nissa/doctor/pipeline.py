"""Metrics check: register the metric producer with the meter provider that a run would use."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nissa.config.sections import FilesConfig
from nissa.distributed.rank import Rank
from nissa.doctor.check_result import CheckResult, Level
from nissa.errors import NissaError
from nissa.otel.export.probing import join
from nissa.otel.setup import Providers, obtain

if TYPE_CHECKING:
    from nissa.otel.export.probing import Joined

CHECK: Final = "metrics"
_END_SECONDS: Final = 1.0


@contextmanager
def providers_of_a_run(profile: str) -> Iterator[Providers | CheckResult]:
    """Yield the providers that `nissa.start` would use, or a finding if it would raise; close them at the end.

    Providers that are configured by environment variables are global, as in a run. Call this once per process.
    """
    with tempfile.TemporaryDirectory(prefix="nissa-doctor-") as folder:
        try:
            found = obtain(
                service_name=None,
                run_id="nissa-doctor",
                profile=profile,
                rank=Rank.from_environment(os.environ),
                folder=Path(folder),
                files=FilesConfig(directory=Path(folder)),
                exit_seconds=_END_SECONDS,
            )
        except Exception as error:  # noqa: BLE001 - the SDK raises whatever its parts do
            text = str(error) if isinstance(error, NissaError) else f"{type(error).__name__}: {error}"
            yield CheckResult(CHECK, Level.ERROR, text, "nissa.start() would raise this; correct what it names.")
            return
        try:
            yield found
        finally:
            found.close(_END_SECONDS)


def check_metrics(providers: Providers) -> CheckResult:
    """Collect the metrics of a run once, without exporting them, and return the finding."""
    reader = providers.only_reader
    if reader is None:
        return check_producer(providers.meter)
    reader.take()
    return CheckResult(CHECK, Level.OK, "Metrics are collected by the run's own pipeline, each step with its time.")


def check_producer(meter: object) -> CheckResult:
    """Register a producer with a meter provider, collect once through its readers, and return the finding."""
    if meter is None:
        return CheckResult(CHECK, Level.NOTE, "There is no meter provider: telemetry is off.")
    joined = join(meter)
    if joined.refused is not None:
        return CheckResult(
            CHECK,
            Level.WARNING,
            f"Metrics cannot join: {joined.refused}. The latest gauges and counts are offered as observable instruments.",
            "Distributions, and the steps between two collections, are lost. Use the SDK's MeterProvider to keep them.",
        )
    return _joined(joined)


def _joined(joined: "Joined") -> CheckResult:
    if not joined.readers:
        found = f"Metrics join {joined.kind}, but no reader collects it: no metrics exporter is configured."
        return CheckResult(
            CHECK, Level.WARNING, found, "Set OTEL_METRICS_EXPORTER, such as to otlp, if metrics are wanted."
        )
    if joined.pulled:
        found = f"Metrics join {joined.kind}; what pulls sees the latest values, and distributions in coarse buckets."
        return CheckResult(CHECK, Level.NOTE, found, "Send OTLP to a collector to keep each step.")
    return CheckResult(CHECK, Level.OK, f"Metrics join {joined.kind}; collected by {joined.readers} reader(s).")
