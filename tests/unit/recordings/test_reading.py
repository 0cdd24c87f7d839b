"""Reading what runs wrote."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nissa
from nissa.errors import ConfigurationError
from nissa.recordings import read
from nissa.recordings.values import number, plain
from tests import otlp
from tests.toys import Toy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return otlp.write(
        tmp_path / "r",
        metrics=[
            otlp.metrics(
                otlp.gauge("m", [(20, 2.0), (10, "NaN")], {"k": "a"}), otlp.gauge("m", [(5, 1.0)], {"k": "b"})
            ),
            otlp.metrics(otlp.gauge("m", [(30, "-Infinity")], {"k": "a"})),
        ],
        traces=[otlp.spans(otlp.span("s", 1, 2, {"n": 3}, trace="t", own="o"))],
        logs=[otlp.logs(otlp.record("e", 7, {"list": ["x", "y"]}, body="said"))],
    )


def test_streams_are_told_apart_by_attributes_and_ordered_by_time(folder: Path) -> None:
    one, other = read(folder).of("m")
    assert (one.attributes, other.attributes) == ({"k": "a"}, {"k": "b"})
    assert one.times.tolist() == [10, 20, 30]
    assert math.isnan(one.values[0])
    assert one.values[1:].tolist() == [2.0, -math.inf]
    assert other.values.tolist() == [1.0]


def test_spans_and_records_are_read_whole(folder: Path) -> None:
    found = read(folder)
    (span,), (record,) = found.spans, found.logs
    assert (span.name, span.start, span.end, span.parent_id, span.attributes) == ("s", 1, 2, None, {"n": 3})
    assert (record.name, record.time, record.body, record.attributes) == ("e", 7, "said", {"list": ["x", "y"]})
    assert found.point_count == 4


def test_a_line_that_a_killed_process_left_unfinished_is_named_and_the_rest_is_read(folder: Path) -> None:
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text()[:-40])
    found = read(folder)
    assert found.damaged == ("metrics.jsonl:2",)
    assert [len(stream.times) for stream in found.of("m")] == [2, 1]


@given(st.data())
def test_wherever_a_file_is_cut_the_lines_before_are_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = [otlp.spans(otlp.span("s", 1, 2, {}, trace="t", own=f"o{number}")) for number in range(3)]
    text = "".join(f"{line}\n" for line in lines)
    cut = data.draw(st.integers(len(lines[0]), len(text)))
    folder = tmp_path_factory.mktemp("cut")
    (folder / "traces.jsonl").write_text(text[:cut])
    whole = sum(cut >= sum(len(line) + 1 for line in lines[: number + 1]) - 1 for number in range(3))
    assert len(read(folder).spans) == whole


def test_files_of_several_processes_are_one_recording(folder: Path) -> None:
    for rank in (0, 1):
        resource = {"dl.rank": rank, "service.instance.id": f"p{rank}"}
        line = otlp.metrics(otlp.gauge("m", [(40 + rank, 1.0)], {"k": "a"}), resource=resource)
        otlp.write(folder, **{f"metrics-rank{rank}": [line]})
    found = read(folder)
    assert sorted(process.rank for process in found.processes if process.rank is not None) == [0, 1]
    assert len([stream for stream in found.of("m") if stream.attributes == {"k": "a"}]) == 3


def test_a_span_that_was_written_twice_counts_once(folder: Path) -> None:
    otlp.write(folder, again=[otlp.spans(otlp.span("s", 1, 2, {"n": 3}, trace="t", own="o"))])
    assert len(read(folder).spans) == 1


def test_lines_of_another_kind_are_passed_over(folder: Path) -> None:
    otlp.write(folder, events=[json.dumps({"event_type": "X"})])
    found = read(folder)
    assert found.damaged == ()
    assert len(found.spans) == 1


@pytest.mark.parametrize("lines", [["{}"], [""], ["no json"]], ids=["foreign", "empty", "damaged"])
def test_a_folder_without_telemetry_is_an_error_that_says_where_some_would_be(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="nissa-runs/<run id>"):
        read(otlp.write(tmp_path / "r", traces=lines))


@pytest.mark.parametrize("name", ["missing", "."])
def test_no_folder_and_an_empty_one_are_errors(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="nissa-runs"):
        read(tmp_path / name)


def test_64_bit_integers_come_as_strings_and_stay_exact() -> None:
    assert plain({"intValue": str(2**53 + 1)}) == 2**53 + 1
    assert plain({"kvlistValue": {"values": [{"key": "a", "value": {"boolValue": True}}]}}) == {"a": True}
    assert plain({}) is None
    assert number({"asInt": "4"}) == 4
    assert number({"flags": 1}) is None


def test_distributions_keep_their_scale_and_whether_they_add_up(tmp_path: Path) -> None:
    line = otlp.metrics(
        otlp.exponential("d", [(9, 2, -3, [1, 0, 2])]), otlp.exponential("e", [(9, 0, 0, [1])], temporality=1)
    )
    found = read(otlp.write(tmp_path / "r", metrics=[line]))
    (one,), (other,) = found.distributions_of("d"), found.distributions_of("e")
    assert (one.cumulative, other.cumulative) == (True, False)
    (point,) = one.points
    assert (point.scale, point.offset, point.counts.tolist(), point.zeros) == (2, -3, [1, 0, 2], 3)


def test_what_a_run_really_writes_is_read() -> None:
    toy = Toy()
    with nissa.start("diagnostic", run_id="r", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        for number in range(2):
            with run.epoch(number):
                toy.step(run)
                run.validate(loss=1.0, accuracy=0.5)
    found = read(Path("nissa-runs/r"))
    (steps,) = found.of("nissa.step")
    assert steps.values.tolist() == [0.0, 1.0]
    assert [span.attributes["nissa.epoch"] for span in found.spans if span.name == "epoch"] == [0, 1]
    assert found.distributions_of("nissa.gradient.magnitude")
    assert not found.damaged
