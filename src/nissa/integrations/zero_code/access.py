"""Observed attributes: a method that reports the object it is called on, without a frame of its own.

A wrapper function would appear in the traceback of every exception that passes through it. A descriptor is called when
the method is looked up, and returns the original method.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ObservedMethod(Generic[T]):
    """Descriptor of a class that calls a function with each instance whose method is looked up.

    Args:
        method: The method as the class defines it.
        observe: The function; it must not raise.
    """

    def __init__(self, method: Any, observe: Callable[[T], None]) -> None:
        self._method = method
        self._observe = observe
        self.__doc__ = method.__doc__

    def __get__(self, instance: T | None, owner: type[T] | None = None) -> Any:
        """Return the original method, after the call if there is an instance."""
        if instance is not None:
            self._observe(instance)
        return self._method.__get__(instance, owner)
