"""What the real servers have of a run that wrote files only and was replayed: what the files say, at the files' times."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nissa.cli.output import ExitCode
from nissa.semconv import metrics, prometheus
from nissa.semconv import spans as names
from nissa.testing import Point, Span
from scripts.stack import Stack
from tests.stack.queries import Past, ended, fetch, links, noted, parent, samples, settled, tags, trace, value
from tests.stack.training import TRANSPORTS, environment, service_name, train
from tests.support import nissa, points, records, spans, until

Replay = Callable[..., Any]
PROTOCOLS = ("grpc", "http/protobuf")
DAY = 86_400_000_000_000
AGE = 20 * DAY
"""How long ago the old run was: Prometheus keeps 30 days."""


def bare(stack: Stack, service: str) -> dict[str, str]:
    """Return the environment of a process that nobody has told of a collector."""
    environ = environment(stack, TRANSPORTS[0], service)
    return {name: each for name, each in environ.items() if not name.startswith("OTEL_EXPORTER")}


@pytest.fixture
def written(stack: Stack, tmp_path: Path) -> Path:
    """Return the folder of a run that no collector has heard of; its name is the service's."""
    service = service_name("replayed")
    train("story", tmp_path, bare(stack, service), "whole", str(tmp_path / "state.json"))
    return tmp_path / "nissa-runs" / service


def command(environ: dict[str, str], folder: Path, *arguments: str, status: int = ExitCode.FINE) -> Any:
    """Run ``nissa replay`` as people do, and return what it prints as JSON."""
    done = nissa("replay", str(folder), *arguments, "--json", env=environ)
    assert done.returncode == status, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.fixture
def replay(stack: Stack, written: Path) -> Replay:
    return partial(command, bare(stack, written.name), written)


def endpoint(stack: Stack, protocol: str) -> str:
    return stack.otlp_grpc if protocol == "grpc" else stack.otlp_http


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_servers_have_what_the_files_have(stack: Stack, written: Path, replay: Replay, protocol: str) -> None:
    said = replay("--endpoint", endpoint(stack, protocol))
    sent = {name: (each["found"], each["sent"]) for name, each in said["signals"].items()}
    counts = {"traces": len(spans(written)), "metrics": len(points(written)), "logs": len(records(written))}
    assert sent == {name: (number, number) for name, number in counts.items()}
    assert min(counts.values()) > 0
    assert {each["protocol"] for each in said["signals"].values()} == {protocol}  # found out by asking
    _in_jaeger(stack, spans(written))
    _in_prometheus(stack, written)
    if not stack.docker:
        _in_lines(stack, written)


def _in_jaeger(stack: Stack, written: list[Span]) -> None:
    for trace_id in {span.trace_id for span in written}:
        wanted = {span.span_id: span for span in written if span.trace_id == trace_id}
        look = partial(_ids, stack, trace_id)
        assert settled(look, sorted(wanted)) == sorted(wanted)
        for found in trace(stack, trace_id):
            _same(found, wanted[found["spanID"]])


def _ids(stack: Stack, trace_id: str) -> list[str]:
    return sorted(span["spanID"] for span in trace(stack, trace_id))


def _distinct(stack: Stack, trace_id: str) -> set[str]:
    return set(_ids(stack, trace_id))


def _same(found: Any, span: Span) -> None:
    assert (found["operationName"], parent(found)) == (span.name, span.parent_id)
    assert found["startTime"] == span.start // 1000
    assert ended(found) == pytest.approx(span.end // 1000, abs=1)
    assert sorted(links(found)) == sorted(span.links)
    simple = {key: each for key, each in span.attributes.items() if not isinstance(each, list)}
    assert simple.items() <= tags(found).items()
    for name in {name for name, _, _ in span.events}:
        assert len(noted(found, name)) == sum(each == name for each, _, _ in span.events)


def _in_prometheus(stack: Stack, written: Path) -> None:
    wanted = _gauge(written)
    assert len(wanted) > 50
    assert settled(partial(_stored, stack, written.name), wanted) == wanted
    past = Past(stack, max(point.time for point in points(written)) / 1e9)
    for spec in (metrics.STEP_DURATION, metrics.GRADIENT_MAGNITUDE):
        total = _count(points(written, spec.name))
        assert total > 0
        _comes_to(partial(past.value, _distribution(spec, written.name)), total)


def _comes_to(look: Callable[[], float | None], wanted: float | None) -> None:
    assert settled(look, wanted) == wanted


def _gauge(written: Path) -> list[tuple[int, float]]:
    """Return the training losses of a run, each with its time in milliseconds."""
    found = points(written, metrics.LOSS.name)
    return sorted((p.time // 1_000_000, p.value) for p in found if p.attributes["nissa.phase"] == "train")


def _stored(stack: Stack, service: str, **at: float) -> list[tuple[int, float]]:
    found = samples(stack, f'{prometheus.series(metrics.LOSS)}{{job="{service}", nissa_phase="train"}}[1h]', **at)
    return sorted((round(float(at) * 1000), float(number)) for each in found for at, number in each["values"])


def _count(found: list[Point]) -> float:
    """Return how many values the last point of each stream has counted; totals are cumulative."""
    last = {json.dumps(point.attributes, sort_keys=True): int(point.raw["count"]) for point in found}
    return float(sum(last.values()))


def _distribution(spec: metrics.MetricSpec, service: str) -> str:
    name = prometheus.series(spec)
    if spec is metrics.STEP_DURATION:
        return f'sum({name}_count{{job="{service}"}})'
    return f'histogram_count(sum({name}{{job="{service}"}}))'


def _in_lines(stack: Stack, written: Path) -> None:
    def arrived() -> int:
        lines = (stack.folder / "collector" / "logs.jsonl").read_text().splitlines()
        ours = [each for line in lines if written.name in line for each in json.loads(line)["resourceLogs"]]
        return sum(len(scope["logRecords"]) for resource in ours for scope in resource["scopeLogs"])

    assert settled(arrived, len(records(written))) == len(records(written))


def test_a_run_that_is_replayed_again_changes_nothing_but_the_count_of_its_spans(
    stack: Stack, written: Path, replay: Replay
) -> None:
    calls = f'sum(traces_span_metrics_calls_total{{service_name="{written.name}", span_name="seed"}})'
    seeds = len([span for span in spans(written) if span.name == names.SEED])
    for times in (1, 2):
        assert replay("--endpoint", stack.otlp_http)["complete"]
        _comes_to(partial(value, stack, calls), seeds * times)
        assert settled(partial(_stored, stack, written.name), _gauge(written)) == _gauge(written)
        (seed, *_) = [span for span in spans(written) if span.name == names.SEED]
        kept = {span.span_id for span in spans(written) if span.trace_id == seed.trace_id}
        assert settled(partial(_distinct, stack, seed.trace_id), kept) == kept
        # Jaeger shows a span once that has a length; what has none, it shows as often as it came.
        assert _ids(stack, seed.trace_id).count(seed.span_id) == 1


def test_an_old_run_has_its_own_times(stack: Stack, written: Path, replay: Replay) -> None:
    before = _gauge(written)
    trace_id = next(span.trace_id for span in spans(written) if span.name == names.EPOCH)
    for path in written.glob("*.jsonl"):
        path.write_text("".join(f"{json.dumps(_aged(json.loads(line)))}\n" for line in path.read_text().splitlines()))
    assert replay("--endpoint", stack.otlp_grpc)["complete"]
    wanted = [(at - AGE // 1_000_000, number) for at, number in before]
    then = {"time": wanted[-1][0] / 1000 + 60}
    assert settled(partial(_stored, stack, written.name, **then), wanted) == wanted
    assert _stored(stack, written.name) == []
    ids = {span.span_id for span in spans(written) if span.trace_id == trace_id}
    assert settled(partial(_distinct, stack, trace_id), ids) == ids
    query: dict[str, str | float] = {"service": written.name, "start": wanted[0][0] * 1000 - 10**9, "limit": 100}
    until(lambda: fetch(f"{stack.jaeger}/api/traces", **query)["data"], "a search for the run")


def _aged(node: Any) -> Any:
    if isinstance(node, list):
        return [_aged(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        name: str(int(each) - AGE) if name.endswith("UnixNano") and int(each) else _aged(each)
        for name, each in node.items()
    }


def test_what_a_killed_process_cut_off_is_said_and_left_out(stack: Stack, written: Path, replay: Replay) -> None:
    path = written / "traces.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[0][:100])
    lines = len(whole.splitlines())
    said = replay("--endpoint", stack.otlp_grpc)
    assert said["complete"]
    assert [(each["file"], each["line"], each["cut"]) for each in said["skipped"]] == [
        ("traces.jsonl", lines + 1, True)
    ]
    assert said["signals"]["traces"]["sent"] == lines


def test_a_collector_that_is_away_is_said_with_what_is_missing(replay: Replay) -> None:
    said = replay("--endpoint", "http://127.0.0.1:9", "--patience", "0.5", status=ExitCode.FINDINGS)
    assert not said["complete"]
    for each in said["signals"].values():
        assert each["sent"] == 0 < each["found"]
        assert any("tried for 0.5 s" in reason for reason in each["reasons"])
