"""Overview at the top of the report: key numbers and the latest narratives."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from nissa.charts.text import ABSENT, number
from nissa.diagnostics.narrative import SEPARATOR
from nissa.recordings import Stream
from nissa.report.learning import VALIDATION
from nissa.report.panels import Table, TableRow, count, percentage
from nissa.report.run_summary import RunSummary, clock_time, duration
from nissa.report.seed_timelines import CULLED, FOSSILIZED
from nissa.report.series_keys import SeriesKey
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric
from nissa.semconv.metrics import MetricSpec


@dataclass(frozen=True, slots=True)
class Tile:
    """Key number with a label and a remark."""

    label: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Lead:
    """Latest narrative of an environment, split into sentences."""

    group: str
    when: str
    sentences: tuple[str, ...]


def tiles(run: RunSummary) -> list[Tile]:
    """Return the key numbers of the whole run."""
    # Steps are numbered from 0, so the number of steps is the last one plus 1.
    steps = run.clock.last_steps()
    last = [life.outcome for life in run.timelines]
    kept, culled = last.count(FOSSILIZED), last.count(CULLED)
    flags = [finding for finding in run.findings if finding.lasting]
    up = sum(finding.until is None for finding in flags)
    return [
        Tile("Duration", duration(run.end - run.begin), f"ended {clock_time(run.end)} UTC"),
        Tile("Optimizer steps", count(sum(each + 1 for each in steps.values()) if steps else None), _epochs(run)),
        _validation(run, "Validation accuracy", metric.ACCURACY, percent=True),
        _validation(run, "Validation loss", metric.LOSS, percent=False),
        Tile(
            "Seeds kept",
            f"{kept} of {len(last)}" if last else ABSENT,
            f"{culled} culled" if last else "none germinated",
        ),
        Tile("Red flags", str(len(flags)), f"{up} still up at the end" if flags else "none was raised"),
    ]


def _epochs(run: RunSummary) -> str:
    epochs = sum(len(stream.values) for _, stream in run.streams(metric.EPOCH))
    envs = max(len(run.names.groups), 1)
    if not epochs:
        return "no epochs were marked"
    return f"{epochs // envs} epochs" + (f" in each of {envs} environments" if envs > 1 else "")


def _validations(run: RunSummary, spec: MetricSpec) -> list[tuple[SeriesKey, Stream]]:
    return [pair for pair in run.streams(spec) if pair[1].attributes.get(attr.PHASE) == VALIDATION]


def _validation(run: RunSummary, label: str, spec: MetricSpec, *, percent: bool) -> Tile:
    found = [stream.values[np.isfinite(stream.values)] for _, stream in _validations(run, spec)]
    found = [values for values in found if len(values)]
    if not found:
        return Tile(label, ABSENT, "no validation was logged")
    shown = percentage if percent else _three
    ends = sorted(float(values[-1]) for values in found)
    best = max(float(values.max()) for values in found) if percent else min(float(values.min()) for values in found)
    value = shown(ends[0]) if len(ends) == 1 else f"{shown(ends[0]).removesuffix('%')} to {shown(ends[-1])}"
    return Tile(label, value, f"best {shown(best)}")


def _three(value: float) -> str:
    return f"{value:.3g}"


HEAD: Final = (
    "steps",
    "epochs",
    "loss, first",
    "loss, last",
    "accuracy, last",
    "accuracy, best",
    "seeds",
    "kept",
    "flags",
)


def environments(run: RunSummary) -> Table | None:
    """Return a table with a row per environment; None if the run has only one."""
    if not run.names.groups:
        return None
    envs = sorted(
        {series_key.env for series_key, _ in run.streams(metric.STEP)} | {life.series_key.env for life in run.timelines}
    )
    rows = [_environment(run, env) for env in envs]
    return Table("Environments at a glance", ("environment", *HEAD), tuple(rows), numeric=len(HEAD))


def _environment(run: RunSummary, env: str) -> TableRow:
    steps = run.clock.last_steps().get(env)
    loss, accuracy = (_values(run, env, spec) for spec in (metric.LOSS, metric.ACCURACY))
    epochs = sum(len(stream.values) for series_key, stream in run.streams(metric.EPOCH) if series_key.env == env)
    outcomes = Counter(life.outcome for life in run.timelines if life.series_key.env == env)
    flags = sum(finding.lasting for finding in run.findings if finding.series_key.env == env)
    return TableRow(
        (
            env or ABSENT,
            count(None if steps is None else steps + 1),
            str(epochs) if epochs else ABSENT,
            number(loss[0] if loss else None),
            number(loss[-1] if loss else None),
            percentage(accuracy[-1] if accuracy else None),
            percentage(max(accuracy, default=None)),
            str(outcomes.total()),
            str(outcomes[FOSSILIZED]),
            str(flags),
        ),
        run.names.group(env),
    )


def _values(run: RunSummary, env: str, spec: MetricSpec) -> Sequence[float]:
    found = [stream for series_key, stream in _validations(run, spec) if series_key.env == env]
    return [float(each) for stream in found for each in stream.values if np.isfinite(each)]


def leads(run: RunSummary) -> list[Lead]:
    """Return the latest narrative of each environment."""
    latest = {narrative.series_key.env: narrative for narrative in run.narratives}
    return [
        Lead(
            run.names.group(env),
            ABSENT if narrative.epoch is None else f"epoch {narrative.epoch}",
            tuple(narrative.text.split(SEPARATOR)),
        )
        for env, narrative in sorted(latest.items())
    ]
