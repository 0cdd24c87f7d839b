import logging

import pytest

from nissa import ConfigurationError
from nissa.hub.error_boundary import ErrorBoundary


@pytest.fixture
def error_boundary() -> ErrorBoundary:
    return ErrorBoundary()


def test_an_exception_of_ours_does_not_leave_the_block(error_boundary: ErrorBoundary) -> None:
    with error_boundary.guard("here"):
        raise ValueError

    assert error_boundary.faults == {"here": 1}


@pytest.mark.parametrize("error", [ConfigurationError("x"), KeyboardInterrupt(), SystemExit(2)], ids=repr)
def test_what_is_meant_for_the_user_passes_uncounted(error_boundary: ErrorBoundary, error: BaseException) -> None:
    with pytest.raises(type(error)), error_boundary.guard("here"):
        raise error

    assert not error_boundary.faults


def test_a_place_is_logged_once_and_counted_always(
    error_boundary: ErrorBoundary, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="nissa"):
        for place in ("here", "there", "here", "here"):
            with error_boundary.guard(place):
                raise ValueError

    assert error_boundary.faults == {"here": 3, "there": 1}
    assert [record.args for record in caplog.records] == [("here",), ("there",)]


def test_nothing_is_counted_where_nothing_fails(error_boundary: ErrorBoundary) -> None:
    with error_boundary.guard("here"):
        pass

    assert not error_boundary.faults
