"""Events as JSON lines."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from nissa.backends.file import FileBackend
from nissa.errors import ConfigurationError
from nissa.events import Severity, Stage, TelemetryEvent


def refuse(text: str) -> None:
    raise AssertionError(f"{text} is not JSON")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_each_event_is_a_line_on_disk_at_once(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path / "deep" / "events.jsonl")
    for number in range(3):
        backend.emit(TelemetryEvent("X", epoch=number, env_id="0", message="a\nb", severity=Severity.WARNING))
        found = lines(backend.path)
        assert [line["epoch"] for line in found] == list(range(number + 1))
    assert found[-1]["message"] == "a\nb"
    assert found[-1]["severity"] == "warning"
    backend.close(1.0)
    backend.close(1.0)


def test_numbers_that_json_does_not_have_are_text(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path / "events.jsonl")
    values = {"loss": math.nan, "deep": {"up": [math.inf, 1.5]}, "down": (-math.inf,)}
    backend.emit(TelemetryEvent("X", data=values))
    (line,) = lines(backend.path)
    assert line["data"] == {"loss": "NaN", "deep": {"up": ["Infinity", 1.5]}, "down": ["-Infinity"]}


def test_what_json_does_not_know_is_described_rather_than_lost(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path / "events.jsonl")
    backend.emit(TelemetryEvent("X", data={"path": Path("a.pt"), "stage": Stage.TRAINING, 3: "three"}))  # type: ignore[dict-item]
    (line,) = lines(backend.path)
    assert line["data"] == {"path": "a.pt", "stage": 3, "3": "three"}


def test_what_is_absent_is_left_out(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path / "events.jsonl")
    backend.emit(TelemetryEvent("X"))
    (line,) = lines(backend.path)
    assert set(line) == {"event_id", "event_type", "time_unix_nano", "severity"}


def test_a_later_backend_appends(tmp_path: Path) -> None:
    for _ in range(2):
        backend = FileBackend(str(tmp_path / "events.jsonl"))
        backend.emit(TelemetryEvent("X"))
        backend.close(1.0)
    assert len(lines(tmp_path / "events.jsonl")) == 2


def test_a_file_that_cannot_be_written_fails_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="Cannot write events to"):
        FileBackend(tmp_path / "file" / "events.jsonl")


@pytest.mark.parametrize("text", ["é", "a\u2028b", "\ud800", "\x00"], ids=ascii)
def test_a_line_has_only_ascii_characters_and_one_end(tmp_path: Path, text: str) -> None:
    backend = FileBackend(tmp_path / "events.jsonl")
    backend.emit(TelemetryEvent("X", message=text, data={text: text}))
    backend.emit_batch([TelemetryEvent("X", message=text), TelemetryEvent("Y", data={"loss": math.nan})])
    written = backend.path.read_bytes()
    assert written.isascii()
    first, second, third = (json.loads(line, parse_constant=refuse) for line in written.decode().splitlines())
    assert (first["message"], first["data"], second["message"]) == (text, {text: text}, text)
    assert third["data"] == {"loss": "NaN"}


def test_a_batch_that_cannot_be_encoded_leaves_nothing(tmp_path: Path) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    backend = FileBackend(tmp_path / "events.jsonl")
    with pytest.raises(RuntimeError, match="no text"):
        backend.emit_batch([TelemetryEvent("X"), TelemetryEvent("X", data={"a": Unprintable()})])
    assert backend.path.read_bytes() == b""
