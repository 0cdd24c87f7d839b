"""Seed sections: a swimlane chart of all seeds, and outcome statistics per blueprint."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from nissa.charts import Bar, Lane, Mark, swimlane
from nissa.charts.text import ABSENT, number
from nissa.events import Stage
from nissa.report.panels import PageSection, Panel, Table, TableRow, Variant, count, percentage, points
from nissa.report.run_summary import RunSummary, clock_time, duration
from nissa.report.seed_timelines import CULLED, FOSSILIZED, GateMark, SeedTimeline, StageSpan
from nissa.seeds.stages import MOMENTARY
from nissa.semconv import metrics as metric
from nissa.semconv.cardinality import check_name

MOST_LANES: Final = 80
"""Maximum number of seeds in the swimlane chart; beyond it, the latest are drawn."""

NONE: Final = "No seed germinated: nothing called run.germinate, and no event of a seed reached the hub."


def seeds(run: RunSummary) -> PageSection:
    """Return the seed section."""
    if not run.timelines:
        return PageSection(key="seeds", title="Seeds", empty=NONE)
    latest = sorted(run.timelines, key=lambda timeline: timeline.start)[-MOST_LANES:]
    shown = [timeline for timeline in run.timelines if timeline in latest]
    left_out = len(run.timelines) - len(shown)
    more = f" The {left_out} oldest seeds are in the table only." if left_out else ""
    panel = Panel(
        key="swimlane",
        title="Lives of the seeds",
        reading=f"Bars: stages. Marks above them: gates that let the seed go on, or did not.{more}",
        summary=summary(run.timelines),
        variants=[Variant("", "", swimlane([_lane(run, timeline) for timeline in shown]))],
        table=_table(run),
    )
    return PageSection(key="seeds", title="Seeds", panels=[panel])


def blueprints(run: RunSummary) -> PageSection:
    """Return the section with outcomes per blueprint."""
    title = "Blueprints"
    if not run.timelines:
        return PageSection(key="blueprints", title=title, empty=NONE)
    names = sorted({timeline.blueprint for timeline in run.timelines})
    by_name = {name: [timeline for timeline in run.timelines if timeline.blueprint == name] for name in names}
    costs = _costs(run)
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
    return PageSection(key="blueprints", title=title, tables=[table])


def summary(timelines: Sequence[SeedTimeline]) -> str:
    """Return the number of seeds per outcome, as a sentence."""
    counts = Counter(timeline.outcome for timeline in timelines)
    outcomes = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
    return f"{len(timelines)} seeds: {outcomes}."


def _lane(run: RunSummary, timeline: SeedTimeline) -> Lane:
    label = " · ".join(part for part in (timeline.seed_id, timeline.blueprint) if part)
    bars = [bar for stage in timeline.stages if (bar := _bar(run, timeline, stage)) is not None]
    marks = [_gate(run, timeline, gate) for gate in timeline.gates]
    marks += [_end(run, timeline, stage) for stage in timeline.stages if stage.stage is Stage.CULLED]
    return Lane(label, run.names.group(timeline.series_key.env), tuple(bars), tuple(marks))


def _bar(run: RunSummary, timeline: SeedTimeline, stage: StageSpan) -> Bar | None:
    if stage.stage in MOMENTARY:
        return None
    # A fossilized seed stays in the network, so its bar extends to the end of the run although its span has ended.
    stays = stage.stage is Stage.FOSSILIZED
    end = run.end if stage.end is None or stays else stage.end
    undecided = stage is timeline.stages[-1] and timeline.outcome not in {FOSSILIZED, CULLED}
    how_long = "to the end of the run" if stays else duration(end - stage.start)
    return Bar(
        stage.stage,
        stage.start,
        end,
        run.clock.step(timeline.series_key, stage.start),
        run.clock.step(timeline.series_key, end),
        open_end=undecided,
        tooltip=(
            f"{stage.stage.label}: {timeline.seed_id}",
            f"blueprint {timeline.blueprint or ABSENT}, slot {timeline.slot or ABSENT}",
            f"from {clock_time(stage.start)}, {how_long}",
            *_worth(timeline, stays=stays),
        ),
    )


def _worth(timeline: SeedTimeline, *, stays: bool) -> tuple[str, ...]:
    return (f"improvement {points(timeline.improvement)} points",) if stays and timeline.improvement is not None else ()


def _gate(run: RunSummary, timeline: SeedTimeline, gate: GateMark) -> Mark:
    verdict = "passed" if gate.passed else "not passed"
    score = "" if gate.score is None else f", score {gate.score:.2f}"
    failed = (f"failed: {', '.join(gate.failed)}",) if gate.failed else ()
    tooltip = (f"{gate.name} {verdict}{score}", f"{timeline.seed_id}, {clock_time(gate.time)}", *failed)
    return Mark(gate.name, gate.time, run.clock.step(timeline.series_key, gate.time), gate.passed, tooltip)


def _end(run: RunSummary, timeline: SeedTimeline, stage: StageSpan) -> Mark:
    tooltip = (f"culled: {timeline.seed_id}, {clock_time(stage.start)}", timeline.reason or "no reason was given")
    worth = (f"improvement {points(timeline.improvement)} points",) if timeline.improvement is not None else ()
    return Mark("culled", stage.start, run.clock.step(timeline.series_key, stage.start), None, (*tooltip, *worth))


def _table(run: RunSummary) -> Table:
    rows = []
    for timeline in run.timelines:
        stages = " → ".join(stage.stage.label for stage in timeline.stages)
        cells = (
            timeline.seed_id,
            timeline.blueprint or ABSENT,
            timeline.slot or ABSENT,
            timeline.outcome,
            timeline.reason or ABSENT,
            stages,
        )
        passed = sum(gate.passed for gate in timeline.gates)
        lasted = duration((timeline.end or run.end) - timeline.start)
        figures = (f"{passed} of {len(timeline.gates)}", points(timeline.improvement), count(timeline.epochs), lasted)
        rows.append(TableRow((*cells, *figures), run.names.group(timeline.series_key.env)))
    head = ("seed", "blueprint", "slot", "outcome", "reason", "stages", "gates passed", "points", "epochs", "lasted")
    return Table("Seeds and what became of them", head, tuple(rows), numeric=4)


def _blueprint(name: str, timelines: Sequence[SeedTimeline], costs: dict[str, float]) -> TableRow:
    counts = Counter(timeline.outcome for timeline in timelines)
    kept, culled = counts[FOSSILIZED], counts[CULLED]
    failed = Counter(check_name(check) for timeline in timelines for gate in timeline.gates for check in gate.failed)
    worth = [
        timeline.improvement
        for timeline in timelines
        if timeline.outcome == FOSSILIZED and timeline.improvement is not None
    ]
    sizes = [timeline.parameters for timeline in timelines if timeline.parameters is not None]
    epochs = [timeline.epochs for timeline in timelines if timeline.epochs is not None]
    cost = costs.get(name)
    return TableRow(
        (
            name or ABSENT,
            f"{failed.most_common(1)[0][0]} ({failed.most_common(1)[0][1]})" if failed else ABSENT,
            str(len(timelines)),
            str(kept),
            str(culled),
            str(len(timelines) - kept - culled),
            percentage(kept / (kept + culled)) if kept + culled else ABSENT,
            points(_mean(worth)),
            count(_mean(sizes)),
            number(_mean(epochs)),
            ABSENT if cost is None else f"{cost:.2f}x",
        )
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _costs(run: RunSummary) -> dict[str, float]:
    """Return the latest compute cost of each blueprint, averaged over the environments."""
    found: dict[str, list[float]] = {}
    for _, stream in run.streams(metric.BLUEPRINT_COMPUTE_COST):
        (name,) = (str(stream.attributes.get(key, "")) for key in metric.BLUEPRINT_COMPUTE_COST.attributes)
        found.setdefault(name, []).append(float(stream.values[-1]))
    return {name: sum(values) / len(values) for name, values in found.items()}
