"""Overview at the top of the report: key numbers and the latest narratives."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from nissa.charts.text import ABSENT, number
from nissa.diagnostics.narrative import SEPARATOR
from nissa.recordings import Stream
from nissa.report.facts import Facts, clock_time, duration
from nissa.report.learning import VALIDATION
from nissa.report.lives import CULLED, FOSSILIZED
from nissa.report.panels import Row, Table, count, percentage
from nissa.report.places import Place
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


def tiles(facts: Facts) -> list[Tile]:
    """Return the key numbers of the whole run."""
    # Steps are numbered from 0, so the number of steps is the last one plus 1.
    steps = facts.clock.last_steps()
    last = [life.outcome for life in facts.lives]
    kept, culled = last.count(FOSSILIZED), last.count(CULLED)
    flags = [finding for finding in facts.findings if finding.lasting]
    up = sum(finding.until is None for finding in flags)
    return [
        Tile("Duration", duration(facts.end - facts.begin), f"ended {clock_time(facts.end)} UTC"),
        Tile("Optimizer steps", count(sum(each + 1 for each in steps.values()) if steps else None), _epochs(facts)),
        _validation(facts, "Validation accuracy", metric.ACCURACY, percent=True),
        _validation(facts, "Validation loss", metric.LOSS, percent=False),
        Tile(
            "Seeds kept",
            f"{kept} of {len(last)}" if last else ABSENT,
            f"{culled} culled" if last else "none germinated",
        ),
        Tile("Red flags", str(len(flags)), f"{up} still up at the end" if flags else "none was raised"),
    ]


def _epochs(facts: Facts) -> str:
    epochs = sum(len(stream.values) for _, stream in facts.streams(metric.EPOCH))
    envs = max(len(facts.places.groups), 1)
    if not epochs:
        return "no epochs were marked"
    return f"{epochs // envs} epochs" + (f" in each of {envs} environments" if envs > 1 else "")


def _validations(facts: Facts, spec: MetricSpec) -> list[tuple[Place, Stream]]:
    return [pair for pair in facts.streams(spec) if pair[1].attributes.get(attr.PHASE) == VALIDATION]


def _validation(facts: Facts, label: str, spec: MetricSpec, *, percent: bool) -> Tile:
    found = [stream.values[np.isfinite(stream.values)] for _, stream in _validations(facts, spec)]
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


def environments(facts: Facts) -> Table | None:
    """Return a table with a row per environment; None if the run has only one."""
    if not facts.places.groups:
        return None
    envs = sorted({place.env for place, _ in facts.streams(metric.STEP)} | {life.place.env for life in facts.lives})
    rows = [_environment(facts, env) for env in envs]
    return Table("Environments at a glance", ("environment", *HEAD), tuple(rows), numeric=len(HEAD))


def _environment(facts: Facts, env: str) -> Row:
    steps = facts.clock.last_steps().get(env)
    loss, accuracy = (_values(facts, env, spec) for spec in (metric.LOSS, metric.ACCURACY))
    epochs = sum(len(stream.values) for place, stream in facts.streams(metric.EPOCH) if place.env == env)
    outcomes = Counter(life.outcome for life in facts.lives if life.place.env == env)
    flags = sum(finding.lasting for finding in facts.findings if finding.place.env == env)
    return Row(
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
        facts.places.group(env),
    )


def _values(facts: Facts, env: str, spec: MetricSpec) -> Sequence[float]:
    found = [stream for place, stream in _validations(facts, spec) if place.env == env]
    return [float(each) for stream in found for each in stream.values if np.isfinite(each)]


def leads(facts: Facts) -> list[Lead]:
    """Return the latest narrative of each environment."""
    latest = {narrative.place.env: narrative for narrative in facts.narratives}
    return [
        Lead(
            facts.places.group(env),
            ABSENT if narrative.epoch is None else f"epoch {narrative.epoch}",
            tuple(narrative.text.split(SEPARATOR)),
        )
        for env, narrative in sorted(latest.items())
    ]
