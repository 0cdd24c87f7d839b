"""Overview at the top of the report: key numbers and the latest narratives."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from nissa.charts.text import ABSENT, number
from nissa.diagnostics.narrative import SEPARATOR
from nissa.recordings import Stream
from nissa.report.learning import TRAIN, VALIDATION
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
    found = [
        Tile("Duration", duration(run.end - run.begin), f"ended {clock_time(run.end)} UTC"),
        Tile("Optimizer steps", count(sum(each + 1 for each in steps.values()) if steps else None), _epochs(run)),
        _measured(run, "Training loss", metric.LOSS, TRAIN, percent=False),
        _measured(run, "Validation loss", metric.LOSS, VALIDATION, percent=False),
        _measured(run, "Validation accuracy", metric.ACCURACY, VALIDATION, percent=True),
        _flags(run),
        _seeds(run),
    ]
    return [tile for tile in found if tile is not None]


def _flags(run: RunSummary) -> Tile:
    flags = [finding for finding in run.findings if finding.lasting]
    up = sum(finding.until is None for finding in flags)
    return Tile("Findings", str(len(run.findings)), f"{up} still up at the end" if up else "none up at the end")


def _seeds(run: RunSummary) -> Tile | None:
    """Return the number of seeds that were kept; None for a run without seeds."""
    if not run.timelines:
        return None
    outcomes = [life.outcome for life in run.timelines]
    note = f"{outcomes.count(CULLED)} culled"
    return Tile("Seeds kept", f"{outcomes.count(FOSSILIZED)} of {len(outcomes)}", note)


def _epochs(run: RunSummary) -> str:
    epochs = sum(len(stream.values) for _, stream in run.streams(metric.EPOCH))
    envs = max(len(run.names.groups), 1)
    if not epochs:
        return "no epochs were marked"
    return f"{epochs // envs} epochs" + (f" in each of {envs} environments" if envs > 1 else "")


def _of_phase(run: RunSummary, spec: MetricSpec, phase: str) -> list[tuple[SeriesKey, Stream]]:
    return [pair for pair in run.streams(spec) if pair[1].attributes.get(attr.PHASE) == phase]


def _measured(run: RunSummary, label: str, spec: MetricSpec, phase: str, *, percent: bool) -> Tile | None:
    """Return the last and the best values of a phase; None where none was recorded."""
    found = [stream.values[np.isfinite(stream.values)] for _, stream in _of_phase(run, spec, phase)]
    found = [values for values in found if len(values)]
    if not found:
        return None
    shown = percentage if percent else _three
    ends = sorted(float(values[-1]) for values in found)
    best = max(float(values.max()) for values in found) if percent else min(float(values.min()) for values in found)
    value = shown(ends[0]) if len(ends) == 1 else f"{shown(ends[0]).removesuffix('%')} to {shown(ends[-1])}"
    return Tile(label, value, f"{'best' if phase == VALIDATION else 'lowest'} {shown(best)}")


def _three(value: float) -> str:
    return f"{value:.3g}"


HEAD: Final = (
    "steps",
    "epochs",
    "loss, first",
    "loss, last",
    "accuracy, last",
    "accuracy, best",
    "flags",
)
SEEDS_HEAD: Final = ("seeds", "kept")
"""Further columns of a run with seeds."""


def environments(run: RunSummary) -> Table | None:
    """Return a table with a row per environment; None if the run has only one."""
    if not run.names.groups:
        return None
    envs = sorted(
        {series_key.env for series_key, _ in run.streams(metric.STEP)} | {life.series_key.env for life in run.timelines}
    )
    rows = [_environment(run, env) for env in envs]
    head = (*HEAD, *(SEEDS_HEAD if run.timelines else ()))
    return Table("Environments at a glance", ("environment", *head), tuple(rows), numeric=len(head))


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
            str(flags),
            *((str(outcomes.total()), str(outcomes[FOSSILIZED])) if run.timelines else ()),
        ),
        run.names.group(env),
    )


def _values(run: RunSummary, env: str, spec: MetricSpec) -> Sequence[float]:
    found = [stream for series_key, stream in _of_phase(run, spec, VALIDATION) if series_key.env == env]
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
