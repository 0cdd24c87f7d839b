"""Environment variables of a check that is given an endpoint or a protocol as arguments."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from nissa.errors import ConfigurationError, UnknownNameError
from nissa.otel.otlp.settings import ENDPOINTS, PREFIX, PROTOCOLS, SIGNALS

_OVERRULED: Final = (
    "OTEL_CONFIG_FILE",
    "OTEL_SDK_DISABLED",
    *ENDPOINTS,
    *(f"{PREFIX}{signal.upper()}_PROTOCOL" for signal in SIGNALS),
)
"""Variables that would override a given endpoint."""


@contextmanager
def overridden(endpoint: str | None, protocol: str | None, further: Mapping[str, str]) -> Iterator[None]:
    """Set variables as the arguments say within a context, and restore them afterwards.

    Args:
        endpoint: Endpoint for all signals; the variables decide if None.
        protocol: Its protocol; the variable decides if None.
        further: Further variables to set.

    Raises:
        ConfigurationError: The protocol is unknown, or is given without an endpoint.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", protocol, PROTOCOLS)
    if protocol is not None and endpoint is None:
        raise ConfigurationError("--protocol says what --endpoint speaks; give both.")
    before = dict(os.environ)
    if endpoint is not None:
        for name in _OVERRULED:
            os.environ.pop(name, None)
        os.environ[f"{PREFIX}ENDPOINT"] = endpoint
    if protocol is not None:
        os.environ[f"{PREFIX}PROTOCOL"] = protocol
    os.environ.update(further)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
