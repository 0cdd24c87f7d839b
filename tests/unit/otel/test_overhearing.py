"""What exporters say becomes a reason instead of lines on the screen."""

import logging
from collections.abc import Iterator

import grpc  # type: ignore[import-untyped]  # it comes without
import pytest

from nissa.otel.export import overhearing
from nissa.otel.export.overhearing import Attempt, overheard

GRPC = logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter")
HTTP = logging.getLogger("opentelemetry.exporter.otlp.proto.http._log_exporter")


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    overhearing.install()
    overhearing.install()
    yield
    overhearing.uninstall()


def grpc_failure(code: grpc.StatusCode, details: str = "details") -> Attempt:
    with overheard() as attempt:
        GRPC.warning(
            "Transient error %s encountered while exporting %s to %s, retrying in %.2fs. Error details: %s",
            *(grpc.StatusCode.ABORTED, "traces", "there:4317", 1.0, "earlier"),
        )
        GRPC.error(
            "Failed to export %s to %s, error code: %s, error details: %s", "traces", "there:4317", code, details
        )
    return attempt


def test_nothing_is_logged_above_debug_inside_and_everything_outside(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with overheard():
        GRPC.error("inside")
    GRPC.error("outside")
    assert [record.getMessage() for record in caplog.records] == ["outside"]


def test_at_debug_it_is_there_as_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with overheard() as attempt:
        GRPC.error("inside")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("DEBUG", "inside")]
    assert attempt.reason == "inside"


def test_a_grpc_status_and_its_details_are_the_reason() -> None:
    assert grpc_failure(grpc.StatusCode.UNAVAILABLE, "Connection refused").reason == "UNAVAILABLE: Connection refused"


@pytest.mark.parametrize(
    ("code", "details", "refused"),
    [
        (grpc.StatusCode.UNAVAILABLE, "gone", False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "gone", False),
        (grpc.StatusCode.UNKNOWN, "stream removed", False),
        (grpc.StatusCode.UNAUTHENTICATED, "no token", True),
        (grpc.StatusCode.UNIMPLEMENTED, "no such service", True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "received message larger than max (5 vs. 4)", True),
    ],
)
def test_only_what_another_try_cannot_change_is_a_refusal(code: grpc.StatusCode, details: str, refused: bool) -> None:
    assert grpc_failure(code, details).refused is refused


def test_an_http_status_is_a_refusal_however_often_it_is_said() -> None:
    for _ in range(2):  # the SDK's filter against repetition keeps the second one from the log, and not from us
        with overheard() as attempt:
            HTTP.error("Failed to export %s batch code: %s, reason: %s", "logs", 401, "Unauthorized")
        assert (attempt.reason, attempt.refused) == ("401: Unauthorized", True)


def test_an_http_client_that_gave_up_tells_the_innermost_cause_of_its_tries() -> None:
    error = ConnectionError("HTTPConnectionPool(...): Max retries exceeded (Caused by Connection refused")
    with overheard() as attempt:
        HTTP.warning("Transient error %s encountered while exporting %s batch, retrying in %.2fs.", error, "logs", 1.0)
        HTTP.error("Failed to export %s batch due to timeout, max retries or shutdown.", "logs")
    assert (attempt.reason, attempt.refused) == ("Connection refused", False)


def test_what_cannot_be_encoded_or_sent_is_lost_with_its_reason() -> None:
    with overheard() as unencodable:
        HTTP.error("Failed to encode logs batch: %s", "bad value")
    failed = Attempt(error=ValueError("a bad number"))
    assert (unencodable.reason, unencodable.refused) == ("Failed to encode logs batch: bad value", True)
    assert (failed.reason, failed.refused) == ("a bad number", True)


def test_uninstalled_it_hears_nothing() -> None:
    overhearing.uninstall()
    with overheard() as attempt:
        GRPC.error("inside")
    assert attempt.records == []
