"""Credential providers: entry points that return gRPC channel credentials or a ``requests.Session``."""

from importlib.metadata import entry_points
from typing import Any, Final

from nissa.errors import ConfigurationError, UnknownNameError

_GROUP: Final = "opentelemetry_otlp_credential_provider"


def load(name: str, kind: type) -> Any:
    """Return what a credential provider returns.

    Args:
        name: Name of the entry point.
        kind: Required type.

    Raises:
        UnknownNameError: No such entry point is installed.
        ConfigurationError: It cannot be loaded, or returns something else.
    """
    points = entry_points(group=_GROUP)
    point = next(iter(points.select(name=name)), None)
    if point is None:
        raise UnknownNameError("credential provider", name, points.names)
    try:
        found = point.load()()
    except Exception as error:
        # The text of the error may contain the credential.
        raise ConfigurationError(
            f"The credential provider {name!r} raised {type(error).__name__}. Correct it, or unset its variable."
        ) from error
    if not isinstance(found, kind):
        wanted, got = (f"{each.__module__}.{each.__qualname__}" for each in (kind, type(found)))
        raise ConfigurationError(f"The credential provider {name!r} returned a {got} instead of a {wanted}.")
    return found
