import logging

import pytest

from nissa import ConfigurationError
from nissa.hub.containment import Containment


@pytest.fixture
def containment() -> Containment:
    return Containment()


def test_an_exception_of_ours_does_not_leave_the_block(containment: Containment) -> None:
    with containment.guard("here"):
        raise ValueError

    assert containment.faults == {"here": 1}


@pytest.mark.parametrize("error", [ConfigurationError("x"), KeyboardInterrupt(), SystemExit(2)], ids=repr)
def test_what_is_meant_for_the_user_passes_uncounted(containment: Containment, error: BaseException) -> None:
    with pytest.raises(type(error)), containment.guard("here"):
        raise error

    assert not containment.faults


def test_a_place_is_logged_once_and_counted_always(containment: Containment, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="nissa"):
        for place in ("here", "there", "here", "here"):
            with containment.guard(place):
                raise ValueError

    assert containment.faults == {"here": 3, "there": 1}
    assert [record.args for record in caplog.records] == [("here",), ("there",)]


def test_nothing_is_counted_where_nothing_fails(containment: Containment) -> None:
    with containment.guard("here"):
        pass

    assert not containment.faults
