"""One test for many cases of a check that is cheap: all cases that fail are reported together."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any


def for_each(
    names: str, cases: Iterable[Any], *, ids: Callable[[Any], object] = str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Call a test function once per case, within one test.

    It takes the place of ``pytest.mark.parametrize`` where a case takes less time than the set-up of a test. Fixtures are
    set up once for all cases.

    Args:
        names: The parameters that a case sets, separated by commas.
        cases: A value for each case, or a tuple of values where there are several parameters.
        ids: Returns what a case is called in a report, given the case.
    """
    parameters = [name.strip() for name in names.split(",")]
    given = list(cases)
    assert given, f"there is no case of {names}"

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function)
        left = [each for each in signature.parameters.values() if each.name not in parameters]

        @functools.wraps(function)
        def test(**fixtures: Any) -> None:
            failures = []
            for case in given:
                values = case if len(parameters) > 1 else (case,)
                try:
                    function(**dict(zip(parameters, values, strict=True)), **fixtures)
                except Exception as failure:  # noqa: BLE001 - it is raised with those of the other cases
                    failure.add_note(f"case: {ids(case)}")
                    failures.append(failure)
            if failures:
                raise ExceptionGroup(f"{len(failures)} of {len(given)} cases fail", failures)

        test.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return test

    return decorate
