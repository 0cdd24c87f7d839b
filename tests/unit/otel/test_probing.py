"""Trying what a run would use leaves it as it was."""

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from nissa.doctor.check_result import Level
from nissa.doctor.pipeline import check_producer
from nissa.otel.export.probing import join


class Strange:
    """A meter provider of somebody else's."""

    def get_meter(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nobody may ask: instruments cannot be taken back")


def test_every_reader_of_the_sdk_s_provider_asks_and_gets_nothing() -> None:
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    provider = MeterProvider(readers, shutdown_on_exit=False)
    consumer = provider._measurement_consumer
    before = consumer.collect
    joined = join(provider)
    assert (joined.refused, joined.readers) == (None, 2)
    assert consumer.collect == before
    assert [reader.get_metrics_data() for reader in readers] == [None, None]
    provider.shutdown()


def test_a_provider_that_cannot_be_joined_says_why_and_gets_no_instruments() -> None:
    found = check_producer(Strange())
    assert found.level is Level.WARNING
    assert "Strange is not the OpenTelemetry SDK's meter provider" in found.found
    assert "Distributions" in found.advice


def test_a_provider_that_nobody_reads_is_a_warning() -> None:
    provider = MeterProvider([], shutdown_on_exit=False)
    found = check_producer(provider)
    assert found.level is Level.WARNING
    assert "no reader collects it" in found.found
    provider.shutdown()


def test_telemetry_that_is_off_is_no_fault() -> None:
    assert check_producer(None).level is Level.NOTE
