"""From the gradients of sampled steps to streams per parameter, which follow the network as it grows."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nissa.events import SpanIds
from nissa.hub.measurements import GradientsMeasured
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric

if TYPE_CHECKING:
    from nissa.kernels.moments import Moments
    from tests.unit.otel.conftest import Kit

Measured = Callable[..., GradientsMeasured]

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def by_parameter(kit: "Kit", name: str) -> dict[str, Any]:
    return {point.attributes[attr.PARAMETER_NAME]: point for point in kit.points(name)}


def test_each_parameter_has_a_point_per_statistic(
    kit: "Kit", make_measured: Measured, make_moments: Callable[..., "Moments"]
) -> None:
    rows = [0.5, -1.0, 0.0], [3.0, 4.0]
    kit.backend.record(make_measured(["w", "b"], *rows, at=2))
    found = kit.metrics()
    moments = make_moments(*rows)
    for statistic, spec in metric.GRADIENT_STATISTICS.items():
        points = found[spec.name].data.data_points
        assert [point.attributes[attr.PARAMETER_NAME] for point in points] == ["w", "b"]
        assert [point.value for point in points] == pytest.approx(getattr(moments, statistic).tolist())
        assert {point.time_unix_nano for point in points} == {START + 2 * SECOND}
    assert [point.value for point in found["nissa.gradient.norm"].data.data_points][1] == 5.0


def test_only_the_statistics_asked_for_are_exported(make_kit: Callable[..., "Kit"], make_measured: Measured) -> None:
    kit = make_kit(settings={"gradients": {"statistics": ["norm"], "percentiles": [50]}})
    kit.backend.record(make_measured(["w"], [1.0, 2.0]))
    exported = set(kit.metrics())
    assert {spec.name for spec in metric.GRADIENT_STATISTICS.values()} & exported == {"nissa.gradient.norm"}


def test_quantiles_are_labelled_as_fractions(make_kit: Callable[..., "Kit"], make_measured: Measured) -> None:
    kit = make_kit(settings={"gradients": {"percentiles": [1, 50, 99.9]}})
    values = np.random.default_rng(1).standard_normal(1000)
    kit.backend.record(make_measured(["w"], values))
    points = {point.attributes[attr.QUANTILE]: point.value for point in kit.points("nissa.gradient.quantile")}
    assert list(points) == ["0.01", "0.5", "0.999"]
    for label, value in points.items():
        exact = float(np.quantile(np.abs(values), float(label), method="inverted_cdf"))
        assert value == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize(
    ("name", "value"),
    [("nissa.gradient.global_norm", 2.0), ("nissa.gradient.health", 0.5), ("nissa.readback.lag", 0.25)],
)
def test_what_concerns_all_parameters_has_one_point(
    kit: "Kit", make_measured: Measured, name: str, value: float
) -> None:
    kit.backend.record(make_measured(["w", "b"], [1.0], [2.0]))
    (point,) = kit.points(name)
    assert (point.value, dict(point.attributes)) == (value, {})


def test_elements_that_are_not_finite_are_counted_and_start_at_zero(kit: "Kit", make_measured: Measured) -> None:
    kit.backend.record(make_measured(["w", "b"], [1.0, math.nan, math.inf], [1.0], at=1))
    kit.backend.record(make_measured(["w", "b"], [1.0, -math.inf, 0.0], [1.0], at=2))
    counts = {name: point.value for name, point in by_parameter(kit, "nissa.gradient.nonfinite").items()}
    assert counts == {"w": 3, "b": 0}


def test_a_statistic_that_does_not_exist_is_absent(kit: "Kit", make_measured: Measured) -> None:
    kit.backend.record(make_measured(["w", "b"], [math.nan], [1.0]))
    found = kit.metrics()
    for name in ("nissa.gradient.norm", "nissa.gradient.mean", "nissa.gradient.abs_max", "nissa.gradient.quantile"):
        assert {point.attributes[attr.PARAMETER_NAME] for point in found[name].data.data_points} == {"b"}
    assert "nissa.gradient.std" not in found


def test_magnitudes_add_up_over_samples(kit: "Kit", make_measured: Measured) -> None:
    kit.backend.record(make_measured(["w"], [1.0, -2.0, 0.0], at=1))
    kit.backend.record(make_measured(["w"], [4.0, math.nan], at=2))
    (point,) = kit.points("nissa.gradient.magnitude")
    assert (point.count, point.zero_count, point.sum, point.max) == (4, 1, 7.0, 4.0)
    assert point.start_time_unix_nano == START


def test_the_largest_magnitude_shows_its_epoch(kit: "Kit", make_measured: Measured) -> None:
    kit.backend.record(make_measured(["w"], [1.0, -2.0], at=1, epoch_ids=SpanIds(5, 6)))
    (point,) = kit.points("nissa.gradient.magnitude")
    (exemplar,) = point.exemplars
    assert (exemplar.value, exemplar.trace_id, exemplar.span_id) == (2.0, 5, 6)


def test_a_parameter_without_finite_elements_has_an_empty_histogram(kit: "Kit", make_measured: Measured) -> None:
    kit.backend.record(make_measured(["w"], [math.nan]))
    (point,) = kit.points("nissa.gradient.magnitude")
    assert (point.count, point.max, point.sum) == (0, None, 0.0)


def test_a_parameter_that_appears_begins_after_the_sample_before(kit: "Kit", make_measured: Measured) -> None:
    kit.backend.record(make_measured(["w"], [1.0], at=1))
    kit.backend.record(make_measured(["w", "new"], [1.0], [1.0], at=3))
    found = kit.metrics()
    for name in ("nissa.gradient.magnitude", "nissa.gradient.nonfinite"):
        points = found[name].data.data_points
        starts = {point.attributes[attr.PARAMETER_NAME]: point.start_time_unix_nano for point in points}
        assert starts == {"w": START, "new": START + SECOND}


def test_a_parameter_that_vanishes_is_told_once_more_and_comes_back_as_another_stream(
    kit: "Kit", make_measured: Measured
) -> None:
    kit.backend.record(make_measured(["w", "b"], [1.0], [1.0], at=1))
    kit.backend.record(make_measured(["w"], [1.0], at=2))
    counts = {name: point.count for name, point in by_parameter(kit, "nissa.gradient.magnitude").items()}
    assert counts == {"w": 2, "b": 1}
    assert list(by_parameter(kit, "nissa.gradient.magnitude")) == ["w"]
    assert list(by_parameter(kit, "nissa.gradient.nonfinite")) == ["w"]
    kit.backend.record(make_measured(["w", "b"], [1.0], [1.0], at=5))
    back = by_parameter(kit, "nissa.gradient.magnitude")["b"]
    assert (back.count, back.start_time_unix_nano) == (1, START + 2 * SECOND)


@pytest.mark.parametrize("key", [{"env_id": "0"}, {"model_name": "critic"}])
def test_a_parameter_that_vanishes_here_lives_on_elsewhere(
    kit: "Kit", make_measured: Measured, key: dict[str, str]
) -> None:
    kit.backend.record(make_measured(["w", "b"], [1.0], [1.0], at=1, **key))
    kit.backend.record(make_measured(["w", "b"], [1.0], [1.0], at=1))
    kit.backend.record(make_measured(["w"], [1.0], at=2))
    kit.metrics()
    alive = [tuple(sorted(point.attributes.values())) for point in kit.points("nissa.gradient.magnitude")]
    assert sorted(alive) == sorted([("w",), *(tuple(sorted([name, *key.values()])) for name in ("w", "b"))])


def test_models_of_an_environment_are_told_apart(kit: "Kit", make_measured: Measured) -> None:
    kit.backend.record(make_measured(["w"], [1.0], model_name="actor", env_id="0"))
    (point,) = kit.points("nissa.gradient.norm")
    assert dict(point.attributes) == {attr.ENV_ID: "0", attr.MODEL_NAME: "actor", attr.PARAMETER_NAME: "w"}


def test_gauges_of_a_network_that_changed_are_all_exported(kit: "Kit", make_measured: Measured) -> None:
    kit.backend.record(make_measured(["w"], [1.0], at=1))
    kit.backend.record(make_measured(["w", "b"], [1.0], [1.0], at=2))
    kit.backend.record(make_measured(["w"], [1.0], at=3))
    found = [
        (point.attributes[attr.PARAMETER_NAME], (point.time_unix_nano - START) // SECOND)
        for point in kit.points("nissa.gradient.norm")
    ]
    assert sorted(found) == [("b", 2), ("w", 1), ("w", 2), ("w", 3)]


def test_nothing_grows_with_a_network_that_grows_and_shrinks(kit: "Kit", make_measured: Measured) -> None:
    for generation in range(30):
        kit.backend.record(make_measured([f"seed{generation}.w"], [1.0], at=generation))
        kit.metrics()
    store = kit.backend.store
    assert len(store.sums[metric.GRADIENT_NONFINITE]) == 1
    assert len(store.magnitudes[metric.GRADIENT_MAGNITUDE]) == 1
    assert len({group for _, group in store.gauges.newest() if isinstance(group, tuple)}) <= 3
    assert not store.ended


def test_of_the_largest_alone_the_others_have_no_point_and_are_not_counted(kit: "Kit", make_measured: Measured) -> None:
    nan = math.nan
    kit.backend.record(make_measured(["w", "b"], [1.0, nan], [3.0], at=1, shown=np.array([0])))
    kit.backend.record(make_measured(["w", "b"], [1.0, 2.0], [3.0, 4.0], at=2, shown=np.array([1])))
    found = kit.metrics()
    norms = [
        (point.attributes[attr.PARAMETER_NAME], point.time_unix_nano, point.value)
        for point in found["nissa.gradient.norm"].data.data_points
    ]
    assert norms == [("w", START + SECOND, 1.0), ("b", START + 2 * SECOND, 5.0)]
    counts = {name: point.count for name, point in by_parameter(kit, "nissa.gradient.magnitude").items()}
    assert counts == {"w": 1, "b": 2}
    assert by_parameter(kit, "nissa.gradient.nonfinite")["w"].value == 1


def test_a_broken_weight_has_a_broken_norm_and_a_weight_of_zeros_no_ratio(
    make_kit: Callable[..., "Kit"], make_measured: Measured
) -> None:
    kit = make_kit(settings={"gradients": {"weight_norms": True, "update_ratios": True}})
    told = {"weight_norms": np.array([math.nan, 0.0]), "update_ratios": np.array([0.5, math.nan])}
    kit.backend.record(make_measured(["w", "b"], [1.0], [1.0], **told))
    found = kit.metrics()
    norms = {p.attributes[attr.PARAMETER_NAME]: p.value for p in found["nissa.weight.norm"].data.data_points}
    assert math.isnan(norms["w"])
    assert norms["b"] == 0.0
    ratios = {p.attributes[attr.PARAMETER_NAME]: p.value for p in found["nissa.update.ratio"].data.data_points}
    assert ratios == {"w": 0.5}


def test_what_was_not_asked_for_is_not_exported(make_kit: Callable[..., "Kit"], make_measured: Measured) -> None:
    kit = make_kit(settings={"gradients": {"weight_norms": False, "update_ratios": True}})
    told = {"weight_norms": np.array([1.0]), "update_ratios": np.array([0.5])}
    kit.backend.record(make_measured(["w"], [1.0], **told))
    exported = set(kit.metrics())
    assert "nissa.weight.norm" not in exported
    assert "nissa.update.ratio" in exported
