import inspect
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa import errors
from nissa.errors import (
    ConfigurationError,
    InvalidValueError,
    JournalError,
    NissaError,
    RunActiveError,
    TransitionError,
    UnknownNameError,
    WatchError,
    near_misses,
)

TREE = {
    NissaError: Exception,
    ConfigurationError: NissaError,
    UnknownNameError: ConfigurationError,
    WatchError: ConfigurationError,
    InvalidValueError: NissaError,
    JournalError: NissaError,
    TransitionError: NissaError,
    RunActiveError: NissaError,
}


@pytest.mark.parametrize(("error", "base"), TREE.items(), ids=lambda kind: kind.__name__)
def test_every_error_is_where_the_drawing_has_it(error: type[Exception], base: type[Exception]) -> None:
    assert error.__bases__[0] is base
    assert error.__name__ in str(errors.__doc__)


def test_the_drawing_has_every_error() -> None:
    found = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}

    assert found == set(TREE)


def test_what_cannot_be_used_is_a_value_error_and_a_second_run_a_runtime_error() -> None:
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(RunActiveError, RuntimeError)
    assert not issubclass(TransitionError, ValueError | RuntimeError)


def test_an_unknown_name_lists_near_misses_and_what_there_is() -> None:
    error = UnknownNameError("profile", "Standart", ["standard", "research", "minimal"])

    assert str(error) == (
        "Unknown profile 'Standart'. Did you mean 'standard'? Available: minimal, research, standard."
    )
    assert (error.kind, error.name, error.available) == ("profile", "Standart", ("minimal", "research", "standard"))


def test_an_unknown_name_without_near_misses_guesses_nothing() -> None:
    assert str(UnknownNameError("profile", "zzz", ["a"])) == "Unknown profile 'zzz'. Available: a."


def test_an_unknown_name_survives_a_process_boundary() -> None:
    error = UnknownNameError("key", "a", iter(["b", "c"]))
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert type(copied) is UnknownNameError
    assert str(copied) == str(error)


def test_near_misses_ignore_case_keep_spelling_and_are_few() -> None:
    assert near_misses("CONSOLE", ["Console", "consola", "file"]) == ["Console", "consola"]
    assert len(near_misses("aaaa", ["aaab", "aaac", "aaad", "aaae"], most=2)) == 2


@given(st.text(), st.lists(st.text()))
def test_near_misses_are_always_available_names(name: str, available: list[str]) -> None:
    assert set(near_misses(name, available)) <= set(available)
