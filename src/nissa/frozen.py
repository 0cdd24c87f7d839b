"""Frozen dataclasses that are created as fast as mutable ones.

The constructor that `dataclasses` generates for a frozen class calls ``object.__setattr__`` once per field, since the
class itself refuses assignments. That is five to eight times as slow as an assignment, and an event and the state of its
seed have 34 fields together. `quick_init` generates a constructor that assigns instead, while the new object belongs to
a class with the same slots that accepts assignments. Before anybody else can see the object, it gets its own class again.

Python allows to change the class of an object if both classes have the same slots.
"""

from dataclasses import MISSING, Field, fields
from functools import wraps
from typing import Any, Final, TypeVar

T = TypeVar("T")

_INDENT: Final = "    "


def quick_init(cls: type[T]) -> type[T]:
    """Replace the constructor of a class by a faster one with the same signature; return the class.

    Args:
        cls: A frozen dataclass with slots and without ``__post_init__``. Its subclasses keep the slow constructor.

    Example:
        >>> @quick_init
        ... @dataclass(frozen=True, slots=True)
        ... class Point:
        ...     x: int
        ...     y: int = 0
    """
    slow = cls.__init__
    names: dict[str, Any] = {
        "_own": cls,
        "_open": type(f"_Open{cls.__name__}", (), {"__slots__": cls.__slots__}),  # type: ignore[attr-defined]
        "_set": object.__setattr__,
        "_slow": slow,
        "_missing": MISSING,
    }
    for each in fields(cls):  # type: ignore[arg-type]  # a dataclass, see above
        names |= {f"_default_{each.name}": each.default, f"_factory_{each.name}": each.default_factory}
    exec(_source(fields(cls)), names)  # type: ignore[arg-type]  # noqa: S102 - from the names of fields, as `dataclasses` does
    cls.__init__ = wraps(slow)(names["_init"])  # type: ignore[method-assign]
    return cls


def _source(of: tuple[Field[Any], ...]) -> str:
    """Return the source of a constructor with a parameter per field."""
    made = [each.name for each in of if each.default_factory is not MISSING]
    lines = [f"if {name} is _missing: {name} = _factory_{name}()" for name in made]
    lines += [f"if self.__class__ is not _own: return _slow(self, {', '.join(each.name for each in of)})"]
    lines += ["_set(self, '__class__', _open)"]
    lines += [f"self.{each.name} = {each.name}" for each in of]
    lines += ["self.__class__ = _own"]
    return f"def _init(self, {', '.join(map(_parameter, of))}):\n{_INDENT}" + f"\n{_INDENT}".join(lines)


def _parameter(field: Field[Any]) -> str:
    if field.default is MISSING and field.default_factory is MISSING:
        return field.name
    # A field with a factory has the default MISSING, which the constructor replaces.
    return f"{field.name}=_default_{field.name}"
