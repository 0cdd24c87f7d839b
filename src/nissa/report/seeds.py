"""Seed sections: a swimlane chart of all seeds, and outcome statistics per blueprint."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from nissa.charts import Bar, Lane, Mark, swimlane
from nissa.charts.text import ABSENT, number
from nissa.events import Stage
from nissa.otel.metrics.labels import check_name
from nissa.report.facts import Facts, clock_time, duration
from nissa.report.lives import CULLED, FOSSILIZED, Gate, Life, StageSpan
from nissa.report.panels import Panel, Row, Section, Table, Variant, count, percentage, points
from nissa.seeds.stages import MOMENTARY
from nissa.semconv import metrics as metric

MOST_LANES: Final = 80
"""Maximum number of seeds in the swimlane chart; beyond it, the latest are drawn."""

NONE: Final = "No seed germinated: nothing called run.germinate, and no event of a seed reached the hub."


def seeds(facts: Facts) -> Section:
    """Return the seed section."""
    if not facts.lives:
        return Section(key="seeds", title="Seeds", empty=NONE)
    latest = sorted(facts.lives, key=lambda life: life.start)[-MOST_LANES:]
    shown = [life for life in facts.lives if life in latest]
    left_out = len(facts.lives) - len(shown)
    more = f" The {left_out} oldest seeds are in the table only." if left_out else ""
    panel = Panel(
        key="swimlane",
        title="Lives of the seeds",
        reading=f"Bars: stages. Marks above them: gates that let the seed go on, or did not.{more}",
        summary=summary(facts.lives),
        variants=[Variant("", "", swimlane([_lane(facts, life) for life in shown]))],
        table=_table(facts),
    )
    return Section(key="seeds", title="Seeds", panels=[panel])


def blueprints(facts: Facts) -> Section:
    """Return the section with outcomes per blueprint."""
    title = "Blueprints"
    if not facts.lives:
        return Section(key="blueprints", title=title, empty=NONE)
    names = sorted({life.blueprint for life in facts.lives})
    by_name = {name: [life for life in facts.lives if life.blueprint == name] for name in names}
    costs = _costs(facts)
    rows = sorted((_blueprint(name, found, costs) for name, found in by_name.items()), key=lambda row: row.cells[0])
    head = (
        "blueprint",
        "most often failed check",
        "seeds",
        "fossilized",
        "culled",
        "undecided",
        "success",
        "improvement, points",
        "parameters",
        "epochs lived",
        "compute",
    )
    table = Table("Blueprints and what became of their seeds", head, tuple(rows), numeric=9)
    return Section(key="blueprints", title=title, tables=[table])


def summary(lives: Sequence[Life]) -> str:
    """Return the number of seeds per outcome, as a sentence."""
    counts = Counter(life.outcome for life in lives)
    told = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
    return f"{len(lives)} seeds: {told}."


def _lane(facts: Facts, life: Life) -> Lane:
    label = " · ".join(part for part in (life.seed_id, life.blueprint) if part)
    bars = [bar for stage in life.stages if (bar := _bar(facts, life, stage)) is not None]
    marks = [_gate(facts, life, gate) for gate in life.gates]
    marks += [_end(facts, life, stage) for stage in life.stages if stage.stage is Stage.CULLED]
    return Lane(label, facts.places.group(life.place.env), tuple(bars), tuple(marks))


def _bar(facts: Facts, life: Life, stage: StageSpan) -> Bar | None:
    if stage.stage in MOMENTARY:
        return None
    # A fossilized seed stays in the network, so its bar extends to the end of the run although its span has ended.
    stays = stage.stage is Stage.FOSSILIZED
    end = facts.end if stage.end is None or stays else stage.end
    undecided = stage is life.stages[-1] and life.outcome not in {FOSSILIZED, CULLED}
    how_long = "to the end of the run" if stays else duration(end - stage.start)
    return Bar(
        stage.stage,
        stage.start,
        end,
        facts.clock.step(life.place, stage.start),
        facts.clock.step(life.place, end),
        open_end=undecided,
        tooltip=(
            f"{stage.stage.label}: {life.seed_id}",
            f"blueprint {life.blueprint or ABSENT}, slot {life.slot or ABSENT}",
            f"from {clock_time(stage.start)}, {how_long}",
            *_worth(life, stays=stays),
        ),
    )


def _worth(life: Life, *, stays: bool) -> tuple[str, ...]:
    return (f"improvement {points(life.improvement)} points",) if stays and life.improvement is not None else ()


def _gate(facts: Facts, life: Life, gate: Gate) -> Mark:
    verdict = "passed" if gate.passed else "not passed"
    score = "" if gate.score is None else f", score {gate.score:.2f}"
    failed = (f"failed: {', '.join(gate.failed)}",) if gate.failed else ()
    told = (f"{gate.name} {verdict}{score}", f"{life.seed_id}, {clock_time(gate.time)}", *failed)
    return Mark(gate.name, gate.time, facts.clock.step(life.place, gate.time), gate.passed, told)


def _end(facts: Facts, life: Life, stage: StageSpan) -> Mark:
    told = (f"culled: {life.seed_id}, {clock_time(stage.start)}", life.reason or "no reason was given")
    worth = (f"improvement {points(life.improvement)} points",) if life.improvement is not None else ()
    return Mark("culled", stage.start, facts.clock.step(life.place, stage.start), None, (*told, *worth))


def _table(facts: Facts) -> Table:
    rows = []
    for life in facts.lives:
        stages = " → ".join(stage.stage.label for stage in life.stages)
        cells = (
            life.seed_id,
            life.blueprint or ABSENT,
            life.slot or ABSENT,
            life.outcome,
            life.reason or ABSENT,
            stages,
        )
        passed = sum(gate.passed for gate in life.gates)
        lasted = duration((life.end or facts.end) - life.start)
        told = (f"{passed} of {len(life.gates)}", points(life.improvement), count(life.epochs), lasted)
        rows.append(Row((*cells, *told), facts.places.group(life.place.env)))
    head = ("seed", "blueprint", "slot", "outcome", "reason", "stages", "gates passed", "points", "epochs", "lasted")
    return Table("Seeds and what became of them", head, tuple(rows), numeric=4)


def _blueprint(name: str, lives: Sequence[Life], costs: dict[str, float]) -> Row:
    counts = Counter(life.outcome for life in lives)
    kept, culled = counts[FOSSILIZED], counts[CULLED]
    failed = Counter(check_name(check) for life in lives for gate in life.gates for check in gate.failed)
    worth = [life.improvement for life in lives if life.outcome == FOSSILIZED and life.improvement is not None]
    sizes = [life.parameters for life in lives if life.parameters is not None]
    epochs = [life.epochs for life in lives if life.epochs is not None]
    cost = costs.get(name)
    return Row(
        (
            name or ABSENT,
            f"{failed.most_common(1)[0][0]} ({failed.most_common(1)[0][1]})" if failed else ABSENT,
            str(len(lives)),
            str(kept),
            str(culled),
            str(len(lives) - kept - culled),
            percentage(kept / (kept + culled)) if kept + culled else ABSENT,
            points(_mean(worth)),
            count(_mean(sizes)),
            number(_mean(epochs)),
            ABSENT if cost is None else f"{cost:.2f}x",
        )
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _costs(facts: Facts) -> dict[str, float]:
    """Return the latest compute cost of each blueprint, averaged over the environments."""
    found: dict[str, list[float]] = {}
    for _, stream in facts.streams(metric.BLUEPRINT_COMPUTE_COST):
        (name,) = (str(stream.attributes.get(key, "")) for key in metric.BLUEPRINT_COMPUTE_COST.attributes)
        found.setdefault(name, []).append(float(stream.values[-1]))
    return {name: sum(values) / len(values) for name, values in found.items()}
