"""Which metrics events and measurements become, to the name, unit, key and type."""

import logging
import math
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from nissa.config import TelemetryConfig
from nissa.events import EventType, SpanIds, Stage, TelemetryEvent
from nissa.hub.measurements import (
    GradientHealth,
    GradientsMeasured,
    LoggedMeasured,
    ReplicasCompared,
    StepMeasured,
    StepSkipped,
    ValidationMeasured,
    WholeModelMeasured,
)
from nissa.otel.metrics.gauges import GaugeLog
from nissa.otel.metrics.recorder import MetricRecorder
from nissa.otel.metrics.store import MetricStore
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric
from nissa.semconv.metrics import EVERY_STREAM, Kind

if TYPE_CHECKING:
    from tests.unit.otel.conftest import Kit, Life

Measured = Callable[..., GradientsMeasured]

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
IDS = SpanIds(0xE1, 0xF1)
KEPT_BY_THE_HUB = {metric.HUB_EVENTS, metric.HUB_QUEUE_SIZE, metric.READBACK_DROPPED}
READ_AT_EACH_EXPORT = {metric.PROCESS_MEMORY, metric.DEVICE_MEMORY}
KEPT_BY_THE_PIPELINE = {metric.EXPORT_ITEMS, metric.JOURNAL_SIZE}
BY_ANALYTICS = {metric.BLUEPRINT_ACCURACY_DELTA, metric.BLUEPRINT_COMPUTE_COST, metric.BLUEPRINT_PARAMETERS}
BY_A_SAMPLER = {metric.SEED_UNSAMPLED}
TYPES: dict[Kind, str] = {
    Kind.GAUGE: "Gauge",
    Kind.COUNTER: "Sum",
    Kind.UP_DOWN_COUNTER: "Sum",
    Kind.HISTOGRAM: "Histogram",
    Kind.EXPONENTIAL_HISTOGRAM: "ExponentialHistogram",
}


def step(**fields: Any) -> StepMeasured:
    told: dict[str, Any] = {"env_id": None, "step": 4, "duration": 0.5, "loss": 0.25, "learning_rate": 0.1} | fields
    told = {"clip_norm": 4.0, "clip_factor": 0.25, "overhead": 0.01, "sampling_interval": 10.0} | told
    told = {"phases": {"forward": 0.25}, "backward_value": 0.125, **told}
    return StepMeasured(time_unix_nano=START + SECOND, epoch_ids=IDS, **told)


def validation(**fields: Any) -> ValidationMeasured:
    told: dict[str, Any] = {"loss": 0.5, "accuracy": 0.75, "train_loss": 0.4, "train_accuracy": 0.8} | fields
    return ValidationMeasured(
        env_id=told.pop("env_id", None),
        epoch=3,
        started=START,
        time_unix_nano=START + 2 * SECOND,
        narrative="Training normally",
        per_class_accuracy={"cat": 0.5},
        red_flags={"plateau": True, "overfitting": False},
        **told,
    )


def compared(outcome: str = "equal", **fields: Any) -> ReplicasCompared:
    known: dict[str, Any] = {"env_id": None, "leads": True, "skew": 0.25} | fields
    return ReplicasCompared(model_name=None, step=3, time_unix_nano=START, ranks=(0, 1), outcome=outcome, **known)


def test_comparisons_of_ranks_are_counted_by_the_leader_once(make_kit: Callable[..., "Kit"]) -> None:
    kit = make_kit()
    for outcome in ("equal", "different", "incomplete", "timed", "data"):
        kit.backend.record(compared(outcome))
    kit.backend.record(compared("explained", layers=("w", "b"), skew=None))
    # What other ranks have learnt is not counted again, what they could not do is.
    kit.backend.record(compared("explained", layers=("w", "b"), leads=False))
    kit.backend.record(compared("incomplete", leads=False))
    kit.backend.record(compared("failed", leads=False))
    found = kit.metrics()
    points = found["nissa.replica.comparisons"].data.data_points
    counts = {point.attributes["nissa.replica.outcome"]: point.value for point in points}
    assert counts == {"equal": 1, "different": 1, "incomplete": 1, "failed": 1}
    assert [point.value for point in found["nissa.replica.mismatch"].data.data_points] == [2]
    assert [point.value for point in found["nissa.step.skew"].data.data_points] == [0.25] * 5


@pytest.fixture
def everything(
    make_kit: Callable[..., "Kit"], make_life: Callable[..., "Life"], make_measured: Measured, epoch_event: Any
) -> "Kit":
    """Everything that can happen, in two environments."""
    kit = make_kit(settings={"gradients": {"weight_norms": True, "update_ratios": True}})
    for env in (None, "7"):
        life = make_life(env_id=env)
        kit.emit(epoch_event(EventType.EPOCH_STARTED, 0, IDS, env_id=env), life.germinate(1), life.refuse(2))
        kit.emit(life.gate(3, passed=False, failed=["gain_0.10%"]), life.advance(Stage.TRAINING, 4))
        kit.emit(life.advance(Stage.BLENDING, 5, alpha=0.5), life.fossilize(6, epochs_total=9, improvement=0.02))
        kit.backend.record(step(env_id=env, learning_rates=(0.1, 0.2)))
        kit.backend.record(validation(env_id=env, sharpness={"critical": 3.0}, stability_margin=0.25))
        kit.backend.record(StepSkipped(env_id=env, model_name=None, time_unix_nano=START))
        kit.backend.record(compared(env_id=env))
        kit.backend.record(LoggedMeasured(env_id=env, time_unix_nano=START, scalars={"kl": 0.5}, items={"samples": 16}))
        kit.backend.record(
            make_measured(
                ["w", "b"],
                [0.5, -1.0, 0.0],
                [math.nan, 2.0],
                env_id=env,
                epoch_ids=IDS,
                weight_norms=np.array([1.0, 2.0]),
                update_ratios=np.array([0.1, 0.2]),
                seed_ratios={"r0c0": 0.1},
            )
        )
    return kit


def test_every_metric_is_emitted_as_it_is_declared(everything: "Kit") -> None:
    found = everything.metrics()
    elsewhere = KEPT_BY_THE_HUB | KEPT_BY_THE_PIPELINE | READ_AT_EACH_EXPORT | BY_A_SAMPLER | BY_ANALYTICS
    assert set(found) == {spec.name for spec in set(metric.ALL) - elsewhere}
    for name, exported in found.items():
        spec = metric.BY_NAME[name]
        assert (exported.unit, exported.description) == (spec.unit, spec.description)
        assert type(exported.data).__name__ == TYPES[spec.kind]
        if spec.kind in {Kind.COUNTER, Kind.UP_DOWN_COUNTER}:
            assert exported.data.is_monotonic is (spec.kind is Kind.COUNTER)


def test_every_point_carries_exactly_the_declared_attributes(everything: "Kit") -> None:
    for name, exported in everything.metrics().items():
        spec = metric.BY_NAME[name]
        for point in exported.data.data_points:
            assert set(point.attributes) - {attr.ENV_ID} == set(spec.attributes), name
        assert {point.attributes.get(attr.ENV_ID) for point in exported.data.data_points} == {None, "7"}, name
        assert attr.ENV_ID in EVERY_STREAM


def test_each_attribute_has_one_type(everything: "Kit") -> None:
    types: dict[str, set[type]] = defaultdict(set)
    for exported in everything.metrics().values():
        for point in exported.data.data_points:
            for key, value in point.attributes.items():
                types[key].add(type(value))
    assert types.pop(attr.GATE_PASSED) == {bool}
    assert set(map(frozenset, types.values())) == {frozenset({str})}


def test_values_are_python_numbers_of_the_kind_s_type(everything: "Kit") -> None:
    for name, exported in everything.metrics().items():
        kind = metric.BY_NAME[name].kind
        for point in exported.data.data_points:
            if kind is Kind.GAUGE:
                assert type(point.value) is float
            elif kind in {Kind.COUNTER, Kind.UP_DOWN_COUNTER}:
                assert type(point.value) is int
            else:
                assert (type(point.count), type(point.sum)) == (int, float)


def test_no_metric_names_a_seed_or_a_run(everything: "Kit") -> None:
    for exported in everything.metrics().values():
        for point in exported.data.data_points:
            assert not {attr.SEED_ID, attr.RUN_ID} & set(point.attributes)
            assert "s1" not in point.attributes.values()


def values(kit: "Kit", name: str) -> dict[tuple[Any, ...], float]:
    return {tuple(sorted(point.attributes.items())): point.value for point in kit.points(name)}


def test_seeds_are_counted_in_one_stage_each(kit: "Kit", make_life: Callable[..., "Life"]) -> None:
    first, second = make_life("s1"), make_life("s2")
    second.seed = replace(second.seed, ids=SpanIds(1, 2))
    kit.emit(first.germinate(0), second.germinate(0), first.advance(Stage.TRAINING, 1), second.cull(2))
    counts = values(kit, "nissa.seed.count")
    assert {dict(key)[attr.SEED_STAGE]: count for key, count in counts.items()} == {
        "germinated": 0,
        "training": 1,
        "culled": 1,
    }


def test_a_resumed_seed_is_counted_where_it_is(kit: "Kit", life: "Life") -> None:
    life.seed = replace(life.seed, stage=Stage.BLENDING)
    kit.emit(life.resume(0))
    assert values(kit, "nissa.seed.count") == {((attr.SEED_STAGE, "blending"),): 1}


def test_transitions_say_from_where_to_where(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.advance(Stage.TRAINING, 1), life.refuse(2))
    (point,) = kit.points("nissa.seed.transitions")
    assert dict(point.attributes) == {
        attr.SEED_FROM: "germinated",
        attr.SEED_TO: "training",
        attr.BLUEPRINT_ID: "conv",
    }
    (refused,) = kit.points("nissa.seed.refused_transitions")
    assert (refused.value, dict(refused.attributes)) == (1, {attr.BLUEPRINT_ID: "conv"})


def test_failed_checks_are_counted_by_name_without_value(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0))
    for gain in (0.1, 0.2, 0.3):
        kit.emit(life.gate(1, passed=False, failed=[f"gain_{gain:.2f}%", "not_ready"]))
    kit.emit(life.gate(2, passed=True))
    checks = {dict(key)[attr.GATE_CHECK]: count for key, count in values(kit, "nissa.seed.gate.failed_checks").items()}
    assert checks == {"gain": 3, "not_ready": 3}
    decided = {dict(key)[attr.GATE_PASSED]: count for key, count in values(kit, "nissa.seed.gate.evaluations").items()}
    assert decided == {False: 3, True: 1}


def test_a_gate_that_says_nothing_is_unknown(kit: "Kit") -> None:
    kit.emit(TelemetryEvent(EventType.SEED_GATE_EVALUATED, seed_id="s1", data={"checks_failed": ["x"]}))
    ((key, _),) = values(kit, "nissa.seed.gate.failed_checks").items()
    assert dict(key) == {attr.GATE_NAME: "unknown", attr.GATE_CHECK: "x", attr.BLUEPRINT_ID: "unknown"}


def lifespans(kit: "Kit") -> list[tuple[str, int, float]]:
    points = kit.points("nissa.seed.lifespan")
    return sorted((point.attributes[attr.SEED_OUTCOME], point.count, point.sum) for point in points)


def test_each_life_has_one_length(kit: "Kit", make_life: Callable[..., "Life"]) -> None:
    lives = []
    for number in range(3):
        life = make_life(f"s{number}")
        life.seed = replace(life.seed, ids=SpanIds(number + 1, 1))
        kit.emit(life.germinate(0))
        lives.append(life)
    kit.emit(lives[0].cull(1, epochs_total=4))
    kit.emit(lives[1].cull(1, epochs_total=6), lives[1].advance(Stage.EMBARGOED, 2))
    kit.emit(lives[2].fossilize(1, epochs_total=5), TelemetryEvent(EventType.TRAINING_ENDED))
    assert lifespans(kit) == [("culled", 2, 10.0), ("fossilized", 1, 5.0)]


def test_a_life_that_goes_on_has_no_length(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), TelemetryEvent(EventType.TRAINING_ENDED))
    assert lifespans(kit) == []


def test_blueprints_are_bounded(life: "Life") -> None:
    store = MetricStore(START, GaugeLog(100))
    recorder = MetricRecorder(store, TelemetryConfig.from_profile("standard", {"limits": {"max_blueprints": 3}}))
    for number in range(10):
        life.seed = replace(life.seed, blueprint_id=f"b{number}", ids=SpanIds(number + 1, 1), stage=Stage.GERMINATED)
        recorder.event(life.refuse(0))
        recorder.event(life.cull(1))
        recorder.event(life.gate(2, passed=False, failed=["x"]))
    for streams in (
        store.sums[metric.SEED_TRANSITIONS],
        store.sums[metric.SEED_REFUSED],
        store.sums[metric.GATE_FAILED_CHECKS],
        store.histograms[metric.SEED_LIFESPAN],
    ):
        assert {stream.attributes[attr.BLUEPRINT_ID] for stream in streams.values()} == {"b0", "b1", "b2", "other"}


def test_a_hundred_blueprints_and_checks_get_labels_by_default(kit: "Kit", life: "Life") -> None:
    for number in range(120):
        life.seed = replace(life.seed, blueprint_id=f"b{number}")
        kit.emit(life.gate(2, passed=False, failed=[f"check_{chr(97 + number // 26)}{chr(97 + number % 26)}"]))
    points = kit.points("nissa.seed.gate.failed_checks")
    assert len({point.attributes[attr.BLUEPRINT_ID] for point in points}) == 101
    assert len({point.attributes[attr.GATE_CHECK] for point in points}) == 101


def test_a_loss_that_is_not_finite_is_kept(kit: "Kit") -> None:
    kit.backend.record(step(loss=math.nan))
    kit.backend.record(step(loss=math.inf))
    kit.backend.record(step(loss=None))
    first, second = (point.value for point in kit.points("nissa.loss"))
    assert math.isnan(first)
    assert second == math.inf


def test_the_first_step_of_an_epoch_has_no_duration(kit: "Kit") -> None:
    absent = ("duration", "learning_rate", "loss", "clip_norm", "clip_factor", "overhead", "sampling_interval")
    kit.backend.record(step(**dict.fromkeys((*absent, "backward_value")), phases={}))
    assert list(kit.metrics()) == ["nissa.step"]


def test_a_step_s_duration_shows_the_epoch_it_belongs_to(kit: "Kit") -> None:
    kit.backend.record(step())
    (point,) = kit.points("nissa.step.duration")
    (exemplar,) = point.exemplars
    assert (exemplar.value, exemplar.trace_id, exemplar.span_id) == (0.5, IDS.trace_id, IDS.span_id)


def test_sharpness_is_told_by_method(kit: "Kit") -> None:
    sharpness = {"critical": 3.0, "average_case": math.inf}
    kit.backend.record(validation(sharpness=sharpness))
    told = values(kit, "nissa.sharpness")
    assert told == {((attr.SHARPNESS_METHOD, method),): value for method, value in sharpness.items()}
    kit.backend.record(validation(stability_margin=0.25))
    assert values(kit, "nissa.stability_margin") == {(): 0.25}


def test_what_a_validation_was_not_told_is_absent(kit: "Kit") -> None:
    kit.backend.record(validation(loss=None, accuracy=None, train_accuracy=None))
    assert sorted(kit.metrics()) == ["nissa.class.accuracy", "nissa.red_flag"]


def test_red_flags_are_one_while_they_hold_and_else_zero(kit: "Kit") -> None:
    kit.backend.record(validation())
    flags = {dict(key)[attr.RED_FLAG_NAME]: value for key, value in values(kit, "nissa.red_flag").items()}
    assert flags == {"plateau": 1.0, "overfitting": 0.0}


def test_alpha_is_shown_by_slot(kit: "Kit", life: "Life") -> None:
    kit.emit(life.germinate(0), life.advance(Stage.BLENDING, 1, alpha=0.25), life.advance(Stage.PROBATIONARY, 2))
    assert [(point.value, dict(point.attributes)) for point in kit.points("nissa.seed.alpha")] == [
        (0.25, {attr.SEED_SLOT: "r0c1"})
    ] * 2


def slots_of(kit: "Kit", name: str) -> set[str]:
    return {point.attributes[attr.SEED_SLOT] for point in kit.points(name)}


def test_slots_have_gauges_up_to_the_bound_and_the_rest_is_logged(
    make_kit: Callable[..., "Kit"],
    make_life: Callable[..., "Life"],
    make_measured: Measured,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kit = make_kit(settings={"limits": {"max_slots": 2}})
    for number in range(10):
        life = make_life(f"s{number}")
        life.seed = replace(life.seed, slot_id=f"slot{number}", alpha=0.5)
        kit.emit(life.germinate(0))
    kit.backend.record(make_measured(["w"], [0.5], seed_ratios={f"slot{number}": 0.1 for number in range(10)}))
    assert slots_of(kit, "nissa.seed.alpha") == {"slot0", "slot1"}
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["More than 2 slots"]
    kit.backend.record(make_measured(["w"], [0.5], at=1, seed_ratios={f"slot{number}": 0.1 for number in range(10)}))
    assert slots_of(kit, "nissa.seed.gradient_ratio") == {"slot0", "slot1"}


def test_environments_have_streams_up_to_the_bound_and_the_rest_is_counted_together(
    make_kit: Callable[..., "Kit"], make_life: Callable[..., "Life"], make_measured: Measured
) -> None:
    kit = make_kit(settings={"limits": {"max_environments": 2}})
    for number in range(10):
        env = str(number)
        kit.emit(make_life(env_id=env).germinate(0))
        kit.backend.record(step(env_id=env, learning_rates=(0.1, 0.2)))
        kit.backend.record(validation(env_id=env))
        kit.backend.record(make_measured(["w"], [0.5], env_id=env))
    seen: dict[str, set[str]] = {}
    for name, exported in kit.metrics().items():
        seen[name] = {point.attributes[attr.ENV_ID] for point in exported.data.data_points}
    counted = {name for name, envs in seen.items() if envs == {"0", "1", "other"}}
    assert counted == {"nissa.seed.count", "nissa.step.duration", "nissa.step.phase.duration"}
    assert all(envs == {"0", "1"} for name, envs in seen.items() if name not in counted)


def test_classes_have_streams_up_to_the_bound(make_kit: Callable[..., "Kit"]) -> None:
    kit = make_kit(settings={"per_class": {"max_classes": 2}})
    for number in range(4):
        kit.backend.record(replace(validation(), per_class_accuracy={f"c{number}": 0.5}))
    assert {point.attributes[attr.CLASS_NAME] for point in kit.points("nissa.class.accuracy")} == {"c0", "c1"}


def test_the_gauges_of_a_slot_end_with_its_seed(life: "Life", make_measured: Measured) -> None:
    store = MetricStore(0, GaugeLog(100))
    recorder = MetricRecorder(store, TelemetryConfig.from_profile("standard"))

    def newest() -> set[str]:
        return {spec.name for spec, _ in store.gauges.newest()}

    recorder.event(life.germinate(0))
    recorder.event(life.advance(Stage.TRAINING, 1, alpha=0.5))
    recorder.gradients(make_measured(["w"], [0.5], seed_ratios={"r0c1": 0.1}))
    names = {"nissa.seed.alpha", "nissa.seed.gradient_ratio"}
    assert names <= newest()
    recorder.event(life.cull(2))
    assert not names & newest()
    recorder.event(life.advance(Stage.EMBARGOED, 3))
    assert not names & newest()


def test_no_exemplar_leads_to_an_epoch_that_the_sampler_dropped(
    make_kit: Callable[..., "Kit"], make_measured: Measured, epoch_event: Any
) -> None:
    told = {}
    for name, sampler in {"kept": ALWAYS_ON, "dropped": ALWAYS_OFF}.items():
        kit = make_kit(sampler=sampler)
        kit.emit(epoch_event(EventType.EPOCH_STARTED, 0, IDS))
        kit.backend.record(step())
        kit.backend.record(make_measured(["w"], [0.5], epoch_ids=IDS))
        metrics = "nissa.step.duration", "nissa.gradient.magnitude"
        told[name] = [len(kit.points(each)[0].exemplars) for each in metrics]
    assert told == {"kept": [1, 1], "dropped": [0, 0]}


def test_skipped_steps_count_as_many_as_there_were(make_kit: Callable[..., "Kit"]) -> None:
    kit = make_kit()
    for count in (1, 4):
        kit.backend.record(StepSkipped(env_id=None, model_name=None, time_unix_nano=START, count=count))
    (point,) = kit.metrics()[metric.STEP_SKIPPED.name].data.data_points
    assert point.value == 5


def test_every_step_has_its_point_however_many_points_parameters_have(
    make_kit: Callable[..., "Kit"], make_measured: Measured
) -> None:
    kit = make_kit(settings={"limits": {"gauge_points_per_export": 50}})
    for number in range(500):
        kit.backend.record(replace(step(step=number), time_unix_nano=START + number))
        kit.backend.record(make_measured(["w", "b"], [0.5], [1.0], at=number))
    found = kit.metrics()
    for spec in (metric.STEP, metric.LOSS, metric.LEARNING_RATE, metric.CLIP_NORM, metric.OVERHEAD_RATIO):
        assert len(found[spec.name].data.data_points) == 500
    assert [point.value for point in found[metric.STEP.name].data.data_points] == list(range(500))
    assert len(found[metric.GRADIENT_NORM.name].data.data_points) <= 50


def test_thinned_steps_are_logged_once_without_holding_the_lock(caplog: pytest.LogCaptureFixture) -> None:
    store, free = MetricStore(START, GaugeLog(5, 10)), list[bool]()

    def acquire() -> None:
        free.append(store.lock.acquire(timeout=5))
        if free[-1]:
            store.lock.release()

    class Handler(logging.Handler):
        """Needs the lock on another thread, as an exporter that a log record triggers."""

        def emit(self, record: logging.LogRecord) -> None:
            del record
            thread = threading.Thread(target=acquire, daemon=True)
            thread.start()
            thread.join()

    reader, handler = Handler(), Handler()
    store.gauges.attach(reader)
    logging.getLogger("nissa").addHandler(handler)
    try:
        with caplog.at_level(logging.WARNING, "nissa"):
            for number in range(100):
                store.gauge(metric.STEP, {}, START + number, number)
    finally:
        logging.getLogger("nissa").removeHandler(handler)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "More points of steps were recorded between two exports than limits.step_points_per_export (10)"
    )
    assert free == [True]


def test_each_parameter_group_has_its_learning_rate_and_a_single_one_no_index(make_kit: Callable[..., "Kit"]) -> None:
    kit = make_kit(settings={"limits": {"max_parameter_groups": 2}})
    for number, rates in enumerate([(0.1,), (0.2, 0.3), (0.4,), (0.5, None, 0.7)]):
        measured = step(step=number, learning_rate=rates[0], learning_rates=rates)
        kit.backend.record(replace(measured, time_unix_nano=START + number))
    points = kit.metrics()[metric.LEARNING_RATE.name].data.data_points
    found = [
        (each.time_unix_nano - START, each.attributes.get(attr.PARAMETER_GROUP_INDEX), each.value) for each in points
    ]
    assert sorted(found, key=str) == [(0, None, 0.1), (1, "0", 0.2), (1, "1", 0.3), (2, "0", 0.4), (3, "0", 0.5)]


def test_the_whole_of_a_model_with_several_optimizers_has_the_name_of_the_model(make_kit: Callable[..., "Kit"]) -> None:
    kit = make_kit()
    for name in (None, "generator"):
        health = GradientHealth(score=0.5, global_norm=5.0, layers=2)
        kit.backend.record(
            WholeModelMeasured(env_id="7", model_name=name, step=1, time_unix_nano=START + SECOND, health=health)
        )
    found = kit.metrics()
    for spec, value in ((metric.GRADIENT_GLOBAL_NORM, 5.0), (metric.GRADIENT_HEALTH, 0.5)):
        points = found[spec.name].data.data_points
        assert [(each.attributes.get(attr.MODEL_NAME), each.value) for each in points] == [
            (None, value),
            ("generator", value),
        ]
