"""Keeps the SDK away from Python's global ``random``, in both directions.

The SDK draws span ids, exemplar choices and retry delays from the module-level generator. A script that seeds it would
get the same ids in every run and rank, and its own random stream would depend on what is exported in the background.
Upstream: open-telemetry/opentelemetry-python#4376.
"""

import random
from importlib import import_module
from typing import Final

_PLACES: Final = (
    ("opentelemetry.sdk.trace.id_generator", "random"),
    ("opentelemetry.sdk.metrics._internal.exemplar.exemplar_reservoir", "randrange"),
    ("opentelemetry.exporter.otlp.common.http", "random"),
    ("opentelemetry.exporter.otlp.proto.grpc.exporter", "random"),
)

# The operating system's generator has no state that a fork could copy.
PRIVATE: Final = random.SystemRandom()


def isolate() -> list[str]:
    """Give each place of the SDK that uses the global generator a private one; return the places changed.

    Places that an SDK version does not have are passed over. Modules are loaded where they are not yet, since an
    exporter that is created later would bring the global generator back.
    """
    return [f"{module}.{name}" for module, name in _PLACES if _replace(module, name)]


def _replace(module: str, name: str) -> bool:
    try:
        target = import_module(module)
    except ImportError:
        return False
    if not hasattr(target, name):
        return False
    setattr(target, name, PRIVATE.randrange if name == "randrange" else PRIVATE)
    return True
