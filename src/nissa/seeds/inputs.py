"""Checks of the values that a training loop passes about a seed. An invalid value is refused and costs no other value."""

import math
from collections.abc import Callable, Iterable
from enum import Enum
from operator import index
from typing import Any, Final, TypeVar

from nissa.errors import UnknownNameError
from nissa.events import Stage
from nissa.printable import printable_name

T = TypeVar("T")

Refuse = Callable[[str, str], None]
"""Refuses a value, given the call and the fix, see `Runtime.refuse`; raises in a strict run."""

_ROUNDING: Final = 1e-6
"""Distance from 0 and 1 that is due to rounding: ten times 0.1 is not exactly 1."""

_ERRORS: Final = (TypeError, ValueError, OverflowError, RuntimeError)
"""Errors of values that cannot be converted; torch raises RuntimeError."""


class SeedInputs:
    """Checker of values.

    Args:
        refuse: Called for each invalid value.
    """

    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse

    def accept(self, call: str, check: Callable[[Any], T], value: Any) -> T | None:
        """Return the checked value; None if it is None or was refused."""
        return None if value is None else self.require(call, check, value)

    def require(self, call: str, check: Callable[[Any], T], value: Any) -> T | None:
        """Return the checked value; None if it was refused."""
        try:
            return check(value)
        except _ERRORS as error:
            reason = str(error)
        self._refuse(call, reason)  # outside of the handler: the error of a strict run has no second traceback
        return None

    def gate(self, result: Any) -> dict[str, Any] | None:
        """Return the data of a gate's event; None if the whole result was refused."""
        found = self.require("gate()", gate_decision, result)
        if found is None:
            return None
        gate, passed = found
        return {
            "gate": gate,
            "passed": passed,
            "score": self.accept("gate(GateResult(score=...))", fraction, getattr(result, "score", None)),
            "checks_passed": self._names("checks_passed", result),
            "checks_failed": self._names("checks_failed", result),
        }

    def _names(self, field: str, result: Any) -> list[str]:
        return self.accept(f"gate(GateResult({field}=...))", labels, getattr(result, field, None)) or []


def number(value: Any) -> float:
    """Return a number on the host; this never waits for a device.

    Raises:
        TypeError: It is not a number on the host.
    """
    device = getattr(getattr(value, "device", None), "type", "cpu")
    if device != "cpu":
        raise TypeError(f"Pass a number on the host, such as value.item(), not a tensor on {device}.")
    if isinstance(value, str | bytes | bool) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"Pass a number, not {type(value).__name__}.")
    return float(value)


def fraction(value: Any) -> float:
    """Return a number from 0 to 1.

    Raises:
        TypeError: It is not a number on the host.
        ValueError: It is out of range.
    """
    found = number(value)
    if not -_ROUNDING <= found <= 1 + _ROUNDING:
        raise ValueError(f"Pass a fraction from 0 to 1, not {found:g}.")
    return min(max(found, 0.0), 1.0)


def change(value: Any) -> float:
    """Return a change of a fraction, from -1 to 1.

    Raises:
        TypeError: It is not a number on the host.
        ValueError: It is out of range or not finite.
    """
    found = number(value)
    if not math.isfinite(found):
        raise ValueError(f"Pass None for a change that was not measured, not {found:g}.")
    if not -1 <= found <= 1:
        raise ValueError(f"Pass a fraction from -1 to 1, not {found:g}; {found:g} points are {found / 100:g}.")
    return found


def whole(value: Any) -> int:
    """Return a whole number of at least 0.

    Raises:
        TypeError: It is not a whole number.
        ValueError: It is negative.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"Pass a whole number, not {type(value).__name__}.")
    found = index(value)
    if found < 0:
        raise ValueError(f"Pass a whole number of at least 0, not {found}.")
    return found


def label(value: Any) -> str:
    """Return a name as printable text of bounded length: text, bytes, a whole number, a member of an enumeration, or a tuple of these such as ``(0, 2)``.

    Raises:
        TypeError: It is none of these.
        ValueError: It is empty.
    """
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("Pass a name, not an empty text.")
        return printable_name(str.__str__(value))  # for a member of a string enumeration this is its value
    if isinstance(value, bytes):
        return printable_name(value.decode(errors="replace"))
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, tuple) and value:
        return printable_name(f"({', '.join(map(label, value))})")
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"Pass a name as text, not {type(value).__name__}.")
    return str(index(value))


def labels(values: Any) -> list[str]:
    """Return names as a list; a single text is one name.

    Raises:
        TypeError: They are not names.
    """
    if isinstance(values, str):
        return [label(values)]
    if not isinstance(values, Iterable):
        raise TypeError(f"Pass a list of names, not {type(values).__name__}.")
    return [label(value) for value in values]


def text(value: Any) -> str:
    """Return a message.

    Raises:
        TypeError: It is not text.
    """
    if not isinstance(value, str):
        raise TypeError(f"Pass text, not {type(value).__name__}.")
    return value


def stage(value: Any) -> Stage:
    """Return a stage by its name or number.

    Raises:
        TypeError: It is neither.
        ValueError: The stage does not exist.
    """
    if not (isinstance(value, (str, int, Enum)) or hasattr(value, "__index__")):
        raise TypeError(f"Pass a Stage or its name, not {type(value).__name__}.")
    try:
        return Stage.parse(value)
    except UnknownNameError as error:
        raise ValueError(str(error)) from None


def gate_decision(result: Any) -> tuple[str, bool]:
    """Return the name of a gate, and whether the seed may pass.

    Raises:
        TypeError: The result is not a `GateResult`, or has no name or decision.
        ValueError: The decision is not one.
    """
    if not (hasattr(result, "gate") and hasattr(result, "passed")):
        raise TypeError(f'Pass a GateResult, such as GateResult("G2", passed=True), not {type(result).__name__}.')
    passed = result.passed
    boolean = isinstance(passed, bool) or type(passed).__name__ in {"bool", "bool_"} or passed in (0, 1)
    if not boolean:
        raise TypeError(f"Pass GateResult(passed=True) or False, not {type(passed).__name__}.")
    return label(result.gate), bool(passed)
