"""Log records and torch's warnings in the trace of their epoch."""

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import nissa
from nissa import TelemetryEvent
from nissa.recordings.values import attributes
from nissa.testing import Telemetry
from tests.support import finish, records, script, spans

CAPTURE: dict[str, Any] = {"logs__capture": True, "console__enabled": False, "run_id": "r"}
FOLDER = Path("nissa-runs/r")


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger("training.loop")
    found.setLevel(logging.DEBUG)
    yield found
    found.setLevel(logging.NOTSET)


def body(record: dict[str, Any]) -> str:
    text: str = record.get("body", {}).get("stringValue", "")
    return text


def logged() -> list[dict[str, Any]]:
    """Return the log records that are no Events."""
    return [record for record in records(FOLDER) if not record.get("eventName")]


def test_a_record_within_an_epoch_has_its_trace_and_one_outside_that_of_the_run(logger: logging.Logger) -> None:
    with nissa.start(**CAPTURE) as run:
        logger.info("before")
        with run.epoch(3):
            logger.warning("loss is %.2f", 0.5)
    before, within = logged()
    (epoch,) = [span for span in spans(FOLDER) if span.name == "epoch"]
    assert (within["traceId"], within["spanId"]) == (epoch.trace_id, epoch.span_id)
    assert (body(within), within["severityText"]) == ("loss is 0.50", "WARN")
    found = attributes(within)
    assert found["nissa.epoch"] == 3
    assert found["code.file.path"] == __file__
    assert found["code.function.name"] == "test_a_record_within_an_epoch_has_its_trace_and_one_outside_that_of_the_run"
    assert found["thread.name"] == "MainThread"
    assert body(before) == "before"
    assert before.get("traceId") != epoch.trace_id


def test_an_exception_is_recorded_with_its_stack(logger: logging.Logger) -> None:
    with nissa.start(**CAPTURE):
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            logger.exception("failed")
    (record,) = logged()
    found = attributes(record)
    assert found["exception.type"] == "ZeroDivisionError"
    assert found["exception.message"] == "division by zero"
    assert "_ = 1 / 0" in found["exception.stacktrace"]
    assert record["severityText"] == "ERROR"


def test_nothing_is_captured_unless_it_is_enabled_and_of_the_level(
    logger: logging.Logger, nissa_telemetry: Telemetry
) -> None:
    factory = logging.getLogRecordFactory()
    with nissa.start(console__enabled=False):
        assert logging.getLogRecordFactory() is factory
        logger.error("unseen")
    nissa_telemetry.events.of("LOG_RECORDED").none()
    with nissa.start(**(CAPTURE | {"logs__level": "WARNING"})):
        logger.info("unseen")
        logger.error("seen")
        for own in ("nissa", "nissa.hub", "opentelemetry.sdk", "urllib3.connectionpool", "grpc"):
            logging.getLogger(own).error("of the export")
    assert [event.message for event in nissa_telemetry.events.of("LOG_RECORDED")] == ["seen"]
    assert logging.getLogRecordFactory() is factory
    logger.error("after the end")


def test_the_epoch_is_that_of_the_thread(logger: logging.Logger, nissa_telemetry: Telemetry) -> None:
    with nissa.start(**CAPTURE) as run:
        barrier = threading.Barrier(2, timeout=60)

        def train(number: int) -> None:
            with run.environment(number).epoch(number + 10):
                barrier.wait()
                logger.info("of %d", number)
                barrier.wait()

        threads = [threading.Thread(target=train, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with run.environment(0).epoch(20), run.environment(1).epoch(21):
            logger.info("of the newest")
            other = threading.Thread(target=lambda: logger.info("of nobody"))
            other.start()
            other.join()
    found = {event.message: (event.env_id, event.epoch) for event in nissa_telemetry.events.of("LOG_RECORDED")}
    assert found == {"of 0": ("0", 10), "of 1": ("1", 11), "of the newest": ("1", 21), "of nobody": (None, None)}


class Unprintable:
    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __str__(self) -> str:
        self.act()
        return "shown"


def test_what_a_message_does_while_it_is_formatted_harms_nobody(
    logger: logging.Logger, nissa_telemetry: Telemetry
) -> None:
    null = logging.NullHandler()
    logger.addHandler(null)
    logger.propagate = False  # no other handler formats the messages
    try:
        with nissa.start(strict=False, **CAPTURE) as run:
            logger.info("%s", Unprintable(lambda: logger.info("inner")))
            logger.info("%s", Unprintable(lambda: run.log(inside=1.0)))
            logger.info("%s", Unprintable(lambda: 1 / 0))
            logger.info("%d", "no number")
    finally:
        logger.propagate = True
        logger.removeHandler(null)
    assert [event.message for event in nissa_telemetry.events.of("LOG_RECORDED")] == ["shown", "shown", "%s", "%d"]


def test_a_backend_that_logs_each_event_does_not_cause_the_next_one(logger: logging.Logger) -> None:
    class Talkative:
        name = "talkative"
        count = 0

        def emit(self, event: TelemetryEvent) -> None:
            self.count += 1
            logger.warning("received %s", event.event_type)

    backend = Talkative()
    with nissa.start(backends=[backend], **CAPTURE):
        logger.info("once")
    assert backend.count < 10


OUTPUT = """
import logging, sys
{setup}
logging.warning("of the root")
logging.getLogger("a").warning("of a logger without a handler")
logging.basicConfig(level=logging.INFO, format="%(message)s", force={force})
logging.getLogger("a").info("after basicConfig")
"""


@pytest.mark.parametrize("force", [False, True])
def test_the_output_of_logging_is_the_same(tmp_path: Path, force: bool) -> None:
    setups = ["", "import nissa; nissa.start(logs__capture=True, console__enabled=False)"]
    texts = []
    for setup in setups:
        status, _, err = finish(script(OUTPUT.format(setup=setup, force=force), folder=tmp_path))
        assert status == 0
        texts.append(err)
    assert texts[0] == texts[1]
    assert "of the root" in texts[0]


def test_a_signal_handler_that_logs_and_a_forked_child_are_harmless(tmp_path: Path) -> None:
    text = """
    import logging, os, signal, time, nissa
    logger = logging.getLogger("a"); logger.setLevel(logging.INFO)
    signal.signal(signal.SIGALRM, lambda *_: logger.info("of the handler"))
    with nissa.start(logs__capture=True, console__enabled=False, run_id="r") as run:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        end = time.monotonic() + 1
        with run.epoch(0):
            while time.monotonic() < end: run.log(value=1.0); logger.info("of the loop")
        signal.setitimer(signal.ITIMER_REAL, 0)
        child = os.fork()
        if child == 0:
            logger.info("of the child"); os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    print(nissa.get_hub().error_boundary.faults)
    """
    status, out, err = finish(script(text, folder=tmp_path))
    assert status == 0, err
    found = {body(record) for record in records(tmp_path / "nissa-runs" / "r") if not record.get("eventName")}
    assert found == {"of the handler", "of the loop"}
    assert out.strip() in {"Counter()", "{}"}


def test_warnings_of_torch_are_events_of_their_epoch(nissa_telemetry: Telemetry) -> None:
    model = torch.nn.Linear(2, 1)
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with nissa.start("minimal", console__enabled=False) as run, run.epoch(4):
            for _ in range(2):
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                torch.optim.lr_scheduler.StepLR(optimizer, 1).step()  # before optimizer.step()
            with pytest.raises(RuntimeError), torch.autograd.detect_anomaly():
                torch.sqrt(torch.zeros(1, requires_grad=True) * 0 - 1).backward()  # type: ignore[no-untyped-call]
            warnings.warn("of the script", stacklevel=1)
    assert warnings.showwarning is before
    found = nissa_telemetry.events.of("TORCH_WARNING")
    assert {event.epoch for event in found} == {4}
    texts = [event.message for event in found]
    assert sum("lr_scheduler.step()" in text for text in texts) == 1, texts
    assert sum("Error detected in SqrtBackward0" in text for text in texts) == 1, texts
    assert not any("of the script" in text for text in texts)
    order = next(event for event in found if "lr_scheduler.step()" in event.message)
    assert order.data["category"] == "UserWarning"
    assert order.data["file"] == __file__


def test_warnings_are_shown_as_before_and_a_later_owner_keeps_its_place() -> None:
    shown: list[str] = []
    before = warnings.showwarning
    try:
        warnings.showwarning = lambda message, *_, **__: shown.append(str(message))
        with nissa.start("minimal", console__enabled=False):
            warnings.showwarning("one", UserWarning, "x.py", 1)
            own = warnings.showwarning = partial(warnings.showwarning)
        assert warnings.showwarning is own
        warnings.showwarning("two", UserWarning, torch.__file__, 1)
    finally:
        warnings.showwarning = before
    assert shown == ["one", "two"]


def test_the_number_of_warnings_is_bounded(nissa_telemetry: Telemetry) -> None:
    with nissa.start("minimal", console__enabled=False):
        before = warnings.showwarning
        with warnings.catch_warnings(record=True):
            for number in range(150):
                before(f"number {number}", UserWarning, torch.__file__, 1)
    nissa_telemetry.events.of("TORCH_WARNING").count(100)
    assert nissa.get_hub().rejections["warning_limit"] == 50


def test_a_warning_has_the_trace_of_its_epoch_in_the_files() -> None:
    with nissa.start("minimal", console__enabled=False, run_id="r") as run, run.epoch(0):
        show = warnings.showwarning
        with warnings.catch_warnings(record=True):
            show("slow", UserWarning, torch.__file__, 7)
    (record,) = [each for each in records(FOLDER) if each.get("eventName") == "nissa.event.torch_warning"]
    (epoch,) = [span for span in spans(FOLDER) if span.name == "epoch"]
    assert (record["traceId"], record["spanId"], body(record)) == (epoch.trace_id, epoch.span_id, "slow")
    assert os.path.samefile(attributes(record)["nissa.event.file"], torch.__file__)  # noqa: PTH121 - a text
