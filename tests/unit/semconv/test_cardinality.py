"""The bound on the number of series."""

import logging

import pytest

from nissa.semconv.cardinality import CardinalityLimiter


def limiter(most: int) -> CardinalityLimiter:
    return CardinalityLimiter(most, "slots", "limits.max_slots")


def test_the_first_values_keep_labels_of_their_own_and_the_rest_is_counted_together() -> None:
    labels = limiter(2)
    assert [labels.label(each) for each in ("a", "b", "c", "a", "b", "d")] == ["a", "b", "other", "a", "b", "other"]
    assert [labels.own(each) for each in ("a", "c")] == ["a", None]


def test_an_absent_value_is_unknown_and_takes_no_place() -> None:
    labels = limiter(1)
    assert [labels.label(each) for each in (None, "", "a", None)] == ["unknown", "unknown", "a", "unknown"]


def test_labels_are_text() -> None:
    assert limiter(2).label(7) == "7"


def test_reaching_the_bound_is_logged_once_with_the_setting_to_raise(caplog: pytest.LogCaptureFixture) -> None:
    labels = limiter(1)
    labels.label("a")
    assert caplog.records == []
    for value in ("b", "c"):
        labels.label(value)
        labels.own(value)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("More than 1 slots: ")
    assert "raise limits.max_slots" in record.getMessage()
