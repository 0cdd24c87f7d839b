"""Folders that are damaged, foreign or hostile: the outcome is a report or one error message, never a traceback."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nissa.errors import ConfigurationError
from nissa.recordings import find_run, jsonl_reader, read
from nissa.report import write_report
from tests import otlp
from tests.cases import for_each
from tests.hostile import UNSAFE, is_safe
from tests.recorded import Recorded, at

GOOD = otlp.spans(otlp.span("epoch", at(0), at(1), {"nissa.epoch": 0}, trace="t", own="o"))
SMALL = Recorded(envs=("0",), steps=20, parameters=1)
Line = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def without_plotly_in_the_page() -> Iterator[None]:
    """Leave four megabytes out of each page, which take most of the time to write it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nissa.report.page.get_plotlyjs", str)
        patch.setattr("nissa.report.page._library", str)
        yield


def nest(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + closing * levels


def metric(kind: str = "gauge", name: Any = "nissa.loss", **point: Any) -> str:
    return otlp.metrics({"name": name, kind: {"dataPoints": [{"timeUnixNano": str(at(1)), **point}]}})


def histogram(scale: Any = 3, offset: Any = 0, counts: Any = ("1", "2"), zeros: Any = "0", **more: Any) -> str:
    positive = {"offset": offset, "bucketCounts": counts}
    point = {"startTimeUnixNano": str(at(0)), "scale": scale, "positive": positive, "zeroCount": zeros, **more}
    return metric("exponentialHistogram", "nissa.gradient.magnitude", **point)


def span(**more: Any) -> str:
    return otlp.spans(otlp.span("seed", at(0), at(1), {}, trace="t", own="s") | more)


def told(name: str, value: Any) -> str:
    """Return a seed with one attribute as it stands."""
    return span(attributes=[{"key": name, "value": value}])


def deep_value(levels: int) -> str:
    return told("k", "@").replace('"@"', nest(levels, '{"arrayValue": {"values": [', "]}}"))


LINES: list[str] = [
    nest(100_000),
    nest(100_000, '{"a":', "}"),
    GOOD.replace('"epoch"', nest(5_000)),
    *map(deep_value, (100, 300, 900, 3_000)),
    metric(asInt=float("inf")),
    metric(asInt="Infinity"),
    metric(asInt="1" * 5_000),
    metric(asInt=10**400),
    metric(asDouble="many"),
    metric(asDouble=10**400),
    metric(asDouble=None),
    metric(asDouble=1e308, timeUnixNano=str(2**63 - 1)),
    metric(asDouble=1, timeUnixNano=str(2**63)),
    metric(asDouble=1, timeUnixNano=10**30),
    metric(asDouble=1, timeUnixNano=-1),
    metric(asDouble=1, timeUnixNano=float("inf")),
    metric(asDouble=1, timeUnixNano=float("nan")),
    metric(asDouble=1, timeUnixNano="yesterday"),
    metric(asDouble=1, timeUnixNano=[]),
    metric(name={"a": 1}, asDouble=1),
    metric(name=None, asDouble=1),
    metric(name="nissa.step", asDouble=float("nan")),
    metric(name="nissa.step", asDouble=float("inf")),
    metric(name="nissa.step", asDouble=-1e308),
    *(metric(name="nissa.gradient.norm", asDouble=value) for value in (0, -1, 1e308, 5e-324, "NaN", "-Infinity")),
    metric(name="nissa.gradient.quantile", asDouble=1, attributes=otlp.attributes({"nissa.quantile": "most"})),
    *(histogram(scale=scale) for scale in (20, 21, -10, -11, 10**9, "x", float("inf"), None)),
    *(histogram(offset=offset) for offset in (2**31, -(2**31), 2**31 - 1, 8 * 1_100, -8 * 1_100, 10**30, "x")),
    *(
        histogram(counts=counts)
        for counts in ([2**63], [-1], [2**63 - 1, 1], [2**62], ["x"], 5, None, [], ["1"] * 9_000)
    ),
    histogram(scale=-10, offset=0),
    histogram(scale=-10, offset=-1),
    histogram(scale=0, offset=1_023, counts=["1"]),
    histogram(scale=0, offset=-1_074, counts=["1"]),
    *(histogram(zeros=zeros) for zeros in (-1, 2**63, 2**63 - 1, "x", float("inf"))),
    histogram(startTimeUnixNano=str(2**63 - 1)),
    span(startTimeUnixNano=str(2**64)),
    span(startTimeUnixNano=str(2**63 - 1), endTimeUnixNano="1"),
    span(startTimeUnixNano=str(253_402_300_800 * 10**9)),
    span(name=None),
    span(name=5),
    span(traceId=[1]),
    span(status=None),
    span(status={"code": 2, "message": 5}),
    span(events=[{"name": 1, "timeUnixNano": "1"}]),
    span(events=5),
    span(attributes=5),
    span(attributes=[{"value": {}}]),
    span(attributes=[{"key": [], "value": {}}]),
    told("nissa.seed.improvement", {"stringValue": "large"}),
    told("nissa.seed.improvement", {"doubleValue": "NaN"}),
    told("nissa.seed.parameters", {"doubleValue": 1e308}),
    told("nissa.seed.parameters", {"intValue": str(2**63)}),
    told("nissa.seed.parameters", {"boolValue": True}),
    told("nissa.seed.epochs", {"arrayValue": {}}),
    told("nissa.env.id", {"stringValue": "²"}),
    told("nissa.env.id", {"stringValue": "9" * 5_000}),
    told("nissa.env.id", {"kvlistValue": {"values": [{"key": "a", "value": {"intValue": 1}}]}}),
    otlp.logs(
        otlp.record("nissa.narrative", at(1), {"nissa.loss": "low", "nissa.accuracy": [1], "nissa.epoch": "warm"})
    ),
    otlp.logs(otlp.record("nissa.event.red_flag_raised", at(1), {"nissa.event.step": "first", "nissa.epoch": 1.5})),
    otlp.logs(otlp.record("nissa.event.red_flag_raised", at(1), {"nissa.event.model": ["a"]})),
    otlp.logs({**otlp.record("nissa.seed.gate", at(1), {"nissa.gate.checks_failed": 5}, trace="t")}),
    otlp.logs({**otlp.record("nissa.narrative", at(1)), "severityNumber": float("inf")}),
    otlp.logs({**otlp.record("nissa.narrative", at(1)), "body": "text"}),
    otlp.logs(otlp.record("nissa.narrative", 2**63 - 1, body="".join(UNSAFE))),
    otlp.spans(otlp.span("seed", 1, 2, {"nissa.seed.id": "".join(UNSAFE)}, trace="\ud800", own="\udfff")),
    otlp.metrics(resource={"service.name": "".join(UNSAFE), "nissa.run.id": "\ud800", "dl.rank": True}),
    otlp.metrics(otlp.gauge("nissa.loss", [(at(1), 1.0)]), resource={"dl.rank": 2**62}),
    '{"resourceSpans": 5}',
    '{"resourceSpans": [5]}',
    '{"resourceSpans": null, "resourceMetrics": {"a": 1}}',
    '{"resourceSpans": [{"resource": [], "scopeSpans": [{}]}]}',
    '{"resourceSpans": [{"scopeSpans": [{"spans": {}}]}]}',
    "null",
    "5",
    "NaN",
    '"text"',
    "\x00" * 1_000,
]
"""Lines of files, each of which is wrong or unusual in one way."""


@for_each("line", LINES, ids=lambda line: line[:150])
def test_a_malformed_line_does_not_hide_the_rest(line: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = otlp.write(tmp_path_factory.mktemp("r"), traces=[GOOD], more=[line, GOOD])
    written = write_report(folder)
    assert written.spans in {1, 2}
    page = Path(written.path).read_text(encoding="utf-8")
    assert all(is_safe(each) for each in page.replace("\t", " ").split("\n"))


def test_all_malformed_lines_together_are_a_report(tmp_path: Path) -> None:
    write_report(otlp.write(tmp_path, traces=[GOOD, *LINES], metrics=LINES[::-1], logs=LINES))


VALUES: list[Any] = [
    *(
        None,
        True,
        0,
        -1,
        2**31,
        2**63,
        2**64,
        10**30,
        1.5,
        1e308,
        float("inf"),
        float("nan"),
        "",
        "x",
        "NaN",
        "-1",
        "1e9",
    ),
    *(str(2**63 - 1), str(2**63), "Infinity", "\ud800", "\x1b[2J\n", [], {}, [1], {"a": 1}, {"stringValue": "x"}),
    *({"intValue": "1"}, {"doubleValue": "NaN"}, {"boolValue": 1}, {"arrayValue": {"values": [{"intValue": 1}]}}),
]


def slots(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place in nested JSON, as its container and its key or index."""
    entries = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    for key, entry in entries:
        yield node, key
        yield from slots(entry)


@given(st.data())
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_a_run_with_any_values_replaced_is_a_report(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = SMALL.write(tmp_path_factory.mktemp("r"))
    for path in sorted(folder.glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            places = list(slots(line))
            for _ in range(data.draw(st.integers(0, 2))):
                container, key = places[data.draw(st.integers(0, len(places) - 1))]
                container[key] = VALUES[data.draw(st.integers(0, len(VALUES) - 1))]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    try:
        write_report(folder)
    except ConfigurationError as error:
        assert "contain no OTLP JSON lines" in str(error)  # noqa: PT017 - either is right


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


KINDS: list[Callable[[Path], object]] = [make_fifo, make_dangling, make_loop, make_binary, Path.mkdir, Path.touch]


@for_each("make", KINDS, ids=lambda make: make.__name__)
def test_an_entry_that_is_no_file_does_not_hide_the_rest(
    make: Callable[[Path], object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = tmp_path_factory.mktemp("runs")
    folder = otlp.write(runs / "r", traces=[GOOD])
    make(folder / "logs.jsonl")
    assert find_run(runs) == folder
    written = write_report(folder)
    assert written.spans == 1
    assert bool(written.damaged) is (make is not Path.touch)
    assert "logs.jsonl" in "".join(written.damaged) or make is Path.touch


@for_each("make", KINDS, ids=lambda make: make.__name__)
def test_a_folder_with_nothing_else_is_one_error(
    make: Callable[[Path], object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("r")
    make(folder / "logs.jsonl")
    with pytest.raises(ConfigurationError, match="nissa-runs/<run id>"):
        write_report(folder)


@for_each("path", ["x" * 5_000, "file", "file/r", "loop", "a\0b"])
def test_a_path_that_is_no_folder_is_one_error(path: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    here = tmp_path_factory.mktemp("here")
    (here / "file").touch()
    (here / "loop").symlink_to("loop")
    for find in (find_run, read):
        with pytest.raises(ConfigurationError, match="There is no folder"):
            find(here / path)


def test_a_line_without_an_end_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_reader, "MOST_BYTES", 1_000)
    folder = otlp.write(tmp_path, traces=[GOOD, "x" * 5_000_000, GOOD.replace('"o"', '"p"')])
    found = read(folder)
    assert len(found.spans) == 2
    assert found.damaged == ("traces.jsonl:2",)


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_report_does_not_follow_a_link_in_the_folder_of_the_run(tmp_path: Path, kind: str) -> None:
    folder, target = otlp.write(tmp_path / "r", traces=[GOOD]), tmp_path / "target"
    target.write_text("precious")
    path = folder / "report.html"
    if kind == "link":
        path.symlink_to(target)
    else:
        os.mkfifo(path)
    with pytest.raises(ConfigurationError, match=r"link|regular file"):
        write_report(folder)
    assert target.read_text() == "precious"
    write_report(folder, tmp_path / "own.html")
