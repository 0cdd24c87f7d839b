"""Counts of seeds and transitions agree with the state table, whatever happens."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nissa.config import TelemetryConfig
from nissa.events import EventType, Stage, TelemetryEvent
from nissa.otel.metrics.gauges import GaugeLog
from nissa.otel.metrics.recorder import MetricRecorder
from nissa.otel.metrics.store import MetricStore
from nissa.seeds.lifecycle import SeedTable
from nissa.seeds.stages import ALIVE
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric

KINDS = [EventType.SEED_GERMINATED, EventType.SEED_FOSSILIZED, EventType.SEED_CULLED]
SIGNALS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([*KINDS, *Stage])), max_size=80)


def event(at: int, seed_id: str, what: EventType | Stage) -> TelemetryEvent:
    kind = EventType.SEED_STAGE_CHANGED if isinstance(what, Stage) else what
    data: dict[str, Any] = {"to": what.label} if isinstance(what, Stage) else {}
    return TelemetryEvent(kind, seed_id=seed_id, slot_id=seed_id, data=data, time_unix_nano=at)


def sums(store: MetricStore, spec: metric.MetricSpec, *names: str) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for stream in store.sums.get(spec, {}).values():
        counts[tuple(stream.attributes[name] for name in names)] += stream.value
    return counts


@settings(max_examples=200)
@given(SIGNALS)
def test_open_seeds_transitions_and_lives_are_counted_as_the_table_knows_them(signals: Any) -> None:
    table, store = SeedTable(), MetricStore(0, GaugeLog(10_000))
    recorder = MetricRecorder(store, TelemetryConfig.minimal())
    events = [each for at, signal in enumerate(signals) for each in table.apply(event(at, *signal))]
    events += table.apply(TelemetryEvent(EventType.TRAINING_ENDED, time_unix_nano=len(signals)))
    for each in events:
        recorder.event(each)

    open_seeds = Counter(record.stage.label for record in table.slots.alive())
    counted = {stage: count for (stage,), count in sums(store, metric.SEED_COUNT, attr.SEED_STAGE).items()}
    assert {stage.label: counted.get(stage.label, 0) for stage in ALIVE} == {
        stage.label: open_seeds[stage.label] for stage in ALIVE
    }
    assert all(count >= 0 for count in counted.values())
    moved = Counter(
        (before.label, after.label)
        for each in events
        if each.transition is not None
        for before, after in [each.transition]
    )
    assert sums(store, metric.SEED_TRANSITIONS, attr.SEED_FROM, attr.SEED_TO) == moved
    ends = {after for _, after in moved if after in {"fossilized", "culled"}}
    observed = {
        stream.attributes[attr.SEED_OUTCOME]: int(stream.counts.sum())
        for stream in store.histograms.get(metric.SEED_LIFESPAN, {}).values()
    }
    assert observed == {end: sum(count for (_, after), count in moved.items() if after == end) for end in ends}
