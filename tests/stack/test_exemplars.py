"""An exemplar leads from a histogram in Prometheus to the epoch in Jaeger in which its value was measured."""

from pathlib import Path
from typing import Any

import pytest

from nissa.semconv import attributes as attr
from nissa.semconv import spans as names
from scripts.stack import Stack
from tests.stack.queries import ended, parent, tags, trace
from tests.stack.trainers.gradients import EPOCHS, STEPS
from tests.stack.training import TRANSPORTS, Transport
from tests.stack.truth import Truth, known_run
from tests.support import until

MILLISECOND = 1e-3
"""What Prometheus keeps of a time."""

EACH_TRANSPORT = pytest.mark.parametrize("transport", TRANSPORTS, ids=str)
KEPT = {"cumulative": {*range(EPOCHS)}, "delta": {0}}
"""Epochs, each of which has an export, whose exemplars Prometheus keeps: of deltas those of the first alone."""
SERIES = ("nissa_step_duration_seconds_bucket", "nissa_gradient_magnitude")


@pytest.fixture
def truth(stack: Stack, stack_folder: Path, transport: Transport) -> Truth:
    return known_run(stack, stack_folder, transport)


@EACH_TRANSPORT
def test_the_exemplar_of_a_gradient_is_the_largest_of_a_step_of_its_epoch(stack: Stack, truth: Truth) -> None:
    for found in _exemplars(truth, "nissa_gradient_magnitude"):
        gradients = truth.magnitudes[found["series"]["nissa_parameter_name"]]
        largest = {gradients[tags(step)[attr.STEP]].max() for step in _steps(stack, found)}
        assert float(found["value"]) in largest


@EACH_TRANSPORT
def test_the_exemplar_of_a_duration_is_that_of_a_step_of_its_epoch(stack: Stack, truth: Truth) -> None:
    for found in _exemplars(truth, "nissa_step_duration_seconds_bucket"):
        durations = [step["duration"] / 1e6 for step in _steps(stack, found)]
        assert any(float(found["value"]) == pytest.approx(duration, abs=2e-6) for duration in durations)
        assert float(found["value"]) <= float(found["series"]["le"])


@EACH_TRANSPORT
@pytest.mark.parametrize("series", SERIES)
def test_exports_bring_exemplars(stack: Stack, truth: Truth, transport: Transport, series: str) -> None:
    epochs = {tags(_epoch(stack, each))[attr.EPOCH] for each in _exemplars(truth, series)}
    assert epochs == KEPT[transport.temporality]


def _exemplars(truth: Truth, series: str) -> list[Any]:
    # The exemplars of an export are stored with its numbers.
    steps = f'max(nissa_step{{job="{truth.service}"}})'
    until(lambda: truth.past.value(steps) == EPOCHS * STEPS - 1, "the last export")
    found = truth.past.exemplars(f'{series}{{job="{truth.service}"}}')
    assert found
    return found


def _steps(stack: Stack, exemplar: Any) -> list[Any]:
    """Return the steps that an exemplar may have been measured in: more than one where steps take less than 1 ms."""
    epoch = _epoch(stack, exemplar)

    def look() -> list[Any]:
        return [
            span
            for span in trace(stack, exemplar["labels"]["trace_id"])
            if span["operationName"] == names.STEP and abs(ended(span) / 1e6 - exemplar["timestamp"]) < MILLISECOND
        ]

    # The collector sends batches of spans in parallel: the epoch may be there before its steps.
    steps = until(look, "the exemplar's step")
    assert {parent(span) for span in steps} == {epoch["spanID"]}
    assert all(tags(span)[attr.STEP] // STEPS == tags(epoch)[attr.EPOCH] for span in steps)
    return steps


def _epoch(stack: Stack, exemplar: Any) -> Any:
    """Return the span that an exemplar names."""

    def look() -> list[Any]:
        spans = trace(stack, exemplar["labels"]["trace_id"])
        return [span for span in spans if span["spanID"] == exemplar["labels"]["span_id"]]

    (epoch,) = until(look, "the exemplar's trace")
    assert epoch["operationName"] == names.EPOCH
    return epoch
