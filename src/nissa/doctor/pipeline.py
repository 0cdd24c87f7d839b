"""Metrics check: where the metrics of a run would go."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nissa.config.sections import FilesConfig
from nissa.distributed.rank import Rank
from nissa.doctor.check_result import CheckResult, Level
from nissa.errors import NissaError
from nissa.otel.compat import metric_readers
from nissa.otel.global_providers import is_real
from nissa.otel.setup import Providers, obtain

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
    reader = providers.reader
    if reader is None:
        return check_provider(providers.meter)
    reader.take()
    return CheckResult(CHECK, Level.OK, "Metrics are collected by the run's own pipeline, each step with its time.")


def check_provider(meter: object) -> CheckResult:
    """Return whether a meter provider that is not the run's own exports metrics, and which."""
    if meter is None:
        return CheckResult(CHECK, Level.NOTE, "There is no meter provider: telemetry is off.")
    kind = f"{type(meter).__module__}.{type(meter).__name__}"
    advice = "Set OTEL_METRICS_EXPORTER, such as to otlp, if metrics are wanted."
    if not is_real(meter):
        return CheckResult(CHECK, Level.WARNING, f"Metrics are lost: {kind} exports nothing.", advice)
    readers = metric_readers(meter)
    if readers is not None and not readers:
        found = f"Metrics go to {kind}, but no reader collects it: no metrics exporter is configured."
        return CheckResult(CHECK, Level.WARNING, found, advice)
    found = f"Metrics go to {kind} through instruments: the latest values at each collection, no distributions of gradients."
    return CheckResult(CHECK, Level.NOTE, found, "Export over OTLP to keep each step.")
