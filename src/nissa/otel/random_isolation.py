"""Private random generator for the OpenTelemetry SDK, so that it does not use Python's global ``random``.

The SDK draws span ids, exemplar choices and retry delays from the global generator. A script that seeds it would get
the same ids in every run and rank. Its own random numbers would depend on exports in the background.
Upstream: open-telemetry/opentelemetry-python#4376.
"""

import sys
from importlib import import_module
from typing import Final

from nissa.random_ids import GENERATOR

_PLACES: Final = (
    ("opentelemetry.sdk.trace.id_generator", "random"),
    ("opentelemetry.sdk.metrics._internal.exemplar.exemplar_reservoir", "randrange"),
)
_EXPORTERS: Final = (
    ("opentelemetry.exporter.otlp.common.http", "random"),
    ("opentelemetry.exporter.otlp.proto.grpc.exporter", "random"),
)


def isolate(*, exporters: bool = True) -> list[str]:
    """Replace the global generator in the modules of the SDK that use it; return the replaced names.

    Names that the installed SDK version lacks are skipped.

    Args:
        exporters: Whether exporters may be created later. Their modules are then imported if necessary, which takes as long
            as the rest of a run's OpenTelemetry together; otherwise only those are changed that are imported already.
    """
    places = [*_PLACES, *(place for place in _EXPORTERS if exporters or place[0] in sys.modules)]
    return [f"{module}.{name}" for module, name in places if _replace(module, name)]


def _replace(module: str, name: str) -> bool:
    try:
        target = import_module(module)
    except ImportError:
        return False
    if not hasattr(target, name):
        return False
    setattr(target, name, GENERATOR.randrange if name == "randrange" else GENERATOR)
    return True
