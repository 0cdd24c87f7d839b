"""Public names of an environment on a run: the same names and signatures, and every argument is passed on."""

import inspect
from contextlib import AbstractContextManager
from inspect import Parameter
from typing import Any, Final
from unittest.mock import MagicMock, PropertyMock

import pytest

import nissa
from nissa import Environment, Run
from scripts.reference_api import public_members

MEMBERS: Final = dict(public_members(Environment))
METHODS: Final = sorted(name for name, member in MEMBERS.items() if not isinstance(member, property))
PROPERTIES: Final = sorted(MEMBERS.keys() - set(METHODS))
ONLY_OF_A_RUN: Final = {
    *("analytics", "close", "closed", "environment", "environments", "flush", "hub"),
    *("on_finding", "seed_states", "state_dict"),
}


def with_default(default: Any) -> Run:
    """Return a run of which nothing but the default environment exists."""
    run = object.__new__(Run)
    run._default = default
    return run


def arguments_of(signature: inspect.Signature) -> inspect.BoundArguments:
    """Return a different object for each parameter but ``self``, passed in the way its kind allows."""
    parameters = list(signature.parameters.values())[1:]
    assert Parameter.VAR_POSITIONAL not in {each.kind for each in parameters}
    positional = [object() for each in parameters if each.kind is Parameter.POSITIONAL_ONLY]
    named = [each.name for each in parameters if each.kind is not Parameter.POSITIONAL_ONLY]
    return signature.bind(None, *positional, **{name: object() for name in named})


def test_a_run_has_the_public_names_of_an_environment_and_its_own() -> None:
    assert {name for name, _ in public_members(Run)} == MEMBERS.keys() | ONLY_OF_A_RUN
    assert MEMBERS.keys().isdisjoint(ONLY_OF_A_RUN)
    assert {"watch", "epoch", "validate"} <= set(METHODS)
    assert {"tracker", "history", "seeds"} <= set(PROPERTIES)


def test_a_run_has_the_attributes_of_its_default_environment() -> None:
    with nissa.start("minimal", console__enabled=False) as run:
        attributes = {name for name in vars(run.environment(0)) if not name.startswith("_")}
        assert attributes == {"env_id"}
        assert run.env_id is None


@pytest.mark.parametrize("name", METHODS)
def test_both_methods_have_one_signature(name: str) -> None:
    assert inspect.signature(getattr(Run, name)) == inspect.signature(getattr(Environment, name))


@pytest.mark.parametrize("name", PROPERTIES)
def test_both_properties_have_one_type(name: str) -> None:
    mine, theirs = vars(Run)[name], vars(Environment)[name]
    assert inspect.signature(mine.fget) == inspect.signature(theirs.fget)
    assert (mine.fset, theirs.fset) == (None, None)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_passes_every_argument_on(name: str) -> None:
    default = MagicMock(spec=Environment)
    signature = inspect.signature(getattr(Environment, name))
    given = arguments_of(signature)
    returned = getattr(with_default(default), name)(*given.args[1:], **given.kwargs)
    target = getattr(default, name)
    if isinstance(returned, AbstractContextManager) and returned is not target.return_value:
        with returned:
            target.return_value.__enter__.assert_called_once()
            target.return_value.__exit__.assert_not_called()
        target.return_value.__exit__.assert_called_once()
    else:
        assert returned is (None if signature.return_annotation is None else target.return_value)
    target.assert_called_once()
    passed = target.call_args
    assert signature.bind(None, *passed.args, **passed.kwargs).arguments == given.arguments


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_is_that_of_the_default_environment(name: str) -> None:
    default, value = MagicMock(spec=Environment), object()
    setattr(type(default), name, PropertyMock(return_value=value))
    assert getattr(with_default(default), name) is value
