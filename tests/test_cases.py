"""A test for many cases runs all of them and reports every one that fails."""

import inspect

import pytest

from tests.cases import for_each


def test_all_cases_run_and_those_that_fail_are_reported_by_name() -> None:
    ran = []

    @for_each("number, limit", [(1, 2), (3, 2), (2, 2), (5, 4)], ids=lambda case: f"{case[0]} below {case[1]}")
    def below(number: int, limit: int) -> None:
        ran.append(number)
        assert number <= limit

    with pytest.raises(ExceptionGroup, match="2 of 4 cases fail") as caught:
        below()
    assert ran == [1, 3, 2, 5]
    assert [failure.__notes__ for failure in caught.value.exceptions] == [
        ["case: 3 below 2"],
        ["case: 5 below 4"],
    ]


def test_fixtures_are_what_is_left_of_the_parameters() -> None:
    @for_each("number", [1])
    def check(number: int, tmp_path: object) -> None:
        assert (number, tmp_path) == (1, "here")

    assert [*inspect.signature(check).parameters] == ["tmp_path"]
    check(tmp_path="here")


def test_no_case_is_an_error() -> None:
    with pytest.raises(AssertionError, match="there is no case of path"):
        for_each("path", [])
