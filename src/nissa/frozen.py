"""Frozen dataclasses that are created and copied as fast as mutable ones.

The constructor that `dataclasses` generates for a frozen class calls ``object.__setattr__`` once per field, since the
class itself refuses assignments. That takes five to eight times as long as an assignment, and an event and the state of
its seed have 34 fields together. The functions here generate code that assigns instead, while the new object belongs to
a class with the same slots that accepts assignments. Before anybody else can see the object, it gets its own class.

Python allows an object to change its class if both classes have the same slots.
"""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")


def quick_init(cls: type[T]) -> type[T]:
    """Replace the constructor of a class by a faster one with the same signature; return the class.

    Args:
        cls: A frozen dataclass with slots and without ``__post_init__``, whose fields are all positional or all keywords.
            Its subclasses keep the slow constructor.

    Example:
        >>> from dataclasses import dataclass
        >>> @quick_init
        ... @dataclass(frozen=True, slots=True)
        ... class Point:
        ...     x: int
        ...     y: int = 0
        >>> Point(1)
        Point(x=1, y=0)
    """
    all_fields = _fields(cls)
    slow = cls.__init__
    passed = ", ".join(f"{each.name}={each.name}" for each in all_fields)
    body = [
        *(f"if {each.name} is _missing: {each.name} = _factory_{each.name}()" for each in all_fields if _is_made(each)),
        f"if self.__class__ is not _own: return _slow(self, {passed})",
        "_set(self, '__class__', _open)",
        *(f"self.{each.name} = {each.name}" for each in all_fields),
        "self.__class__ = _own",
    ]
    defaults = {f"_default_{each.name}": each.default for each in all_fields}
    factories = {f"_factory_{each.name}": each.default_factory for each in all_fields}
    names = {**defaults, **factories, "_slow": slow, "_set": object.__setattr__, "_missing": MISSING}
    star = ["*"] if any(each.kw_only for each in all_fields) else []
    quick = _function(cls, ["self", *star, *map(_parameter, all_fields)], body, names)
    cls.__init__ = wraps(slow)(quick)  # type: ignore[method-assign]
    return cls


def quick_changed(cls: type[T]) -> type[T]:
    """Replace the method ``changed`` of a class, which works as `dataclasses.replace`, by a faster one; return the class.

    Args:
        cls: See `quick_init`. Of its subclasses the method returns an object of the class itself.
    """
    names = [each.name for each in _fields(cls)]
    body = [
        "new = _open()",
        *(f"new.{name} = self.{name} if {name} is _missing else {name}" for name in names),
        "new.__class__ = _own",
        "return new",
    ]
    quick = _function(cls, ["self", "*", *(f"{name}=_missing" for name in names)], body, {"_missing": MISSING})
    cls.changed = wraps(cls.changed)(quick)  # type: ignore[attr-defined]
    return cls


def _fields(cls: type) -> tuple[Field[Any], ...]:
    return fields(cls)


def _is_made(field: Field[Any]) -> bool:
    return field.default_factory is not MISSING


def _parameter(field: Field[Any]) -> str:
    required = field.default is MISSING and not _is_made(field)
    # The default of a field with a factory is MISSING, which the constructor replaces.
    return field.name if required else f"{field.name}=_default_{field.name}"


def _function(cls: type, parameters: Sequence[str], body: Sequence[str], names: dict[str, Any]) -> Callable[..., Any]:
    """Return a function with the given source that can use ``_own``, the class, and ``_open``, its mutable twin."""
    twin = type(f"_Open{cls.__name__}", (), {"__slots__": cls.__slots__})  # type: ignore[attr-defined]
    known = {**names, "_own": cls, "_open": twin}
    source = "\n    ".join([f"def made({', '.join(parameters)}):", *body])
    exec(source, known)  # noqa: S102 - made of the names of fields, as `dataclasses` does
    made: Callable[..., Any] = known["made"]
    return made
