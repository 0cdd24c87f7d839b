"""What a reader of the SDK asks for."""

import pytest
from opentelemetry.sdk.metrics import Counter, Histogram, UpDownCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

from nissa.otel.metrics.temporality import Form, form_of
from nissa.semconv.metrics import Kind

DELTA = AggregationTemporality.DELTA


def test_a_reader_wants_totals_by_default() -> None:
    assert form_of(InMemoryMetricReader()) == Form()


@pytest.mark.parametrize(
    ("instrument", "kinds"),
    [
        (Counter, {Kind.COUNTER}),
        (UpDownCounter, {Kind.UP_DOWN_COUNTER}),
        (Histogram, {Kind.HISTOGRAM, Kind.EXPONENTIAL_HISTOGRAM}),
    ],
)
def test_differences_are_wanted_per_kind_of_instrument(instrument: type, kinds: set[Kind]) -> None:
    form = form_of(InMemoryMetricReader(preferred_temporality={instrument: DELTA}))
    assert form.deltas == kinds
    assert {kind for kind in Kind if form.temporality(kind) == DELTA} == kinds


def test_the_prometheus_reader_shows_the_present(pull_reader: InMemoryMetricReader) -> None:
    assert form_of(pull_reader).pull
    assert not form_of(InMemoryMetricReader()).pull


def test_what_is_no_reader_of_the_sdk_is_given_totals() -> None:
    assert form_of(object()) == Form()
