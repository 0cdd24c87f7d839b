"""Test kit for training code: telemetry in memory, a clock that tests move, and assertions that say what was found.

pytest loads the fixtures of `nissa.pytest_plugin` by itself. Without pytest, use `capture`. Importing this package imports
neither torch nor OpenTelemetry.
"""

from nissa.testing.capturing import capture
from nissa.testing.clock import FakeClock
from nissa.testing.records import Link, LogRecord, Point, Span, SpanEvent
from nissa.testing.selections import Events, Findings, Metrics, Records, Selection, Spans
from nissa.testing.telemetry import Telemetry

__all__ = [
    "Events",
    "FakeClock",
    "Findings",
    "Link",
    "LogRecord",
    "Metrics",
    "Point",
    "Records",
    "Selection",
    "Span",
    "SpanEvent",
    "Spans",
    "Telemetry",
    "capture",
]
