"""The end of providers is bounded, in the process that made them."""

import atexit
import logging
import os
from collections.abc import Callable
from threading import Event
from time import monotonic
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from nissa.otel.export import ending
from nissa.otel.export.ending import BoundedEnd


class Hanging:
    """A provider that comes back only when it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.released = Event()

    def force_flush(self) -> None:
        self.calls.append("force_flush")
        self.released.wait(30)

    def shutdown(self) -> None:
        self.calls.append("shutdown")
        self.released.wait(30)


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """Stand in for the interpreter's exit, with the handlers that the SDK registers."""
    registered: list[Callable[[], Any]] = []

    def register(function: Callable[[], Any]) -> Callable[[], Any]:
        registered.append(function)
        return function

    def unregister(function: Callable[[], Any]) -> None:
        registered[:] = [each for each in registered if each != function]

    monkeypatch.setattr(atexit, "register", register)
    monkeypatch.setattr(atexit, "unregister", unregister)
    monkeypatch.setattr("opentelemetry.sdk.metrics._internal.register", register)
    monkeypatch.setattr("opentelemetry.sdk.metrics._internal.unregister", unregister)
    return registered


def test_no_handler_of_the_sdk_is_left_for_any_signal(hooks: list[Callable[[], Any]]) -> None:
    providers = (TracerProvider(), LoggerProvider(), MeterProvider())
    assert len(hooks) == 3
    end = BoundedEnd(providers, 1.0)
    end.at_exit()
    assert hooks == [end._exit]
    end.shutdown(1.0)


def test_what_a_late_flush_took_counts_towards_the_exit() -> None:
    provider = Hanging()
    end = BoundedEnd([provider], 0.5)
    assert not end.flush(0.5)
    began = monotonic()
    end._exit()
    assert monotonic() - began < 0.4
    assert provider.calls == ["force_flush", "shutdown"]
    provider.released.set()


def test_lateness_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    provider = Hanging()
    end = BoundedEnd([provider], 0.1)
    end.flush(0.1)
    end.flush(0.1)
    end._exit()
    provider.released.set()
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "0.1 s" in warnings[0].getMessage()


def test_the_last_word_is_said_before_the_time_is_up() -> None:
    provider = Hanging()
    began = monotonic()
    BoundedEnd([provider], 1.0).flush(1.0)
    assert monotonic() - began < 1.0
    provider.released.set()


def test_a_forked_child_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = Hanging()
    end = BoundedEnd([provider], 1.0)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    end._exit()
    assert provider.calls == []


def test_what_is_kept_is_not_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    class Behind:
        behind, waiting, retried = True, 1, 0

        def retry(self) -> None:
            Behind.retried += 1

    monkeypatch.setattr(ending, "channels", lambda _: [Behind()])
    provider = Hanging()
    provider.released.set()
    assert not BoundedEnd([provider], 1.0).flush(1.0)
    assert Behind.retried == 1
