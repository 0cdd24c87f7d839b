import numpy as np
import pytest
import torch

from nissa.gradients.health import assess
from nissa.hub.measurements import GradientHealth
from nissa.kernels.moments import Layout, Thresholds, decode
from nissa.kernels.reference import measure

INF, NAN = float("inf"), float("nan")
FINE, TINY, HUGE = [1.0] * 200, [1e-9] * 200, [1e6] * 200


def health(*layers: list[float], dtype: torch.dtype = torch.float64) -> GradientHealth:
    named = [(f"l{index}", torch.tensor(values, dtype=dtype)) for index, values in enumerate(layers)]
    rows = measure([values for _, values in named], Layout(), Thresholds())
    return assess(tuple(name for name, _ in named), decode(rows.numpy(), Layout()))


@pytest.mark.parametrize(
    ("layers", "score"),
    [
        ([FINE], 1.0),
        ([TINY], 0.5),
        ([HUGE], 0.2),
        ([TINY, FINE], 0.75),
        ([HUGE, FINE], 0.6),
        ([TINY, HUGE], 0.35),
        ([TINY, TINY, HUGE, FINE], 0.55),
        ([HUGE, HUGE, HUGE], 0.2),
        ([[0.0] * 200], 0.5),
    ],
    ids=["fine", "vanishing", "exploding", "half vanishing", "half exploding", "both", "mixed", "all", "zeros"],
)
def test_the_score_is_that_of_the_documented_formula(layers: list[list[float]], score: float) -> None:
    assert health(*layers).score == pytest.approx(score)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_one_element_that_is_not_finite_is_the_worst_health(value: float) -> None:
    found = health(FINE, [*FINE, value])
    assert found.score == 0.0
    assert found.nonfinite == ("l1",)
    assert found.global_norm == pytest.approx(20.0)


def test_without_a_finite_element_there_is_no_norm_and_no_health() -> None:
    found = health([NAN, INF])
    assert (found.score, found.global_norm, found.layers) == (0.0, None, 1)
    assert (found.vanishing, found.exploding, found.nonfinite) == ((), (), ("l0",))


def test_without_layers_nothing_is_known() -> None:
    assert health() == GradientHealth(score=None, global_norm=None, layers=0)
    assert health([]) == GradientHealth(score=None, global_norm=None, layers=0)


def test_a_layer_without_elements_is_no_layer() -> None:
    found = health([], TINY, FINE)
    assert (found.layers, found.score, found.vanishing) == (2, 0.75, ("l1",))


def test_half_of_the_elements_is_not_yet_vanishing() -> None:
    assert health([1.0, 1e-9]).vanishing == ()
    assert health([1.0, 1e-9, 1e-9]).vanishing == ("l0",)


def test_one_in_a_hundred_is_not_yet_exploding() -> None:
    assert health([1e6, *[1.0] * 99]).exploding == ()
    assert health([1e6, *[1.0] * 98]).exploding == ("l0",)


def test_a_norm_of_zero_is_measured() -> None:
    assert health([0.0, 0.0]).global_norm == 0.0


def test_a_norm_beyond_float32_is_a_number() -> None:
    assert health([3e20, 4e20], dtype=torch.float32).global_norm == pytest.approx(5e20, rel=1e-6)


def test_a_norm_beyond_float64_is_infinite_and_not_absent() -> None:
    with np.errstate(over="ignore"):
        assert health([1e200, 1e200]).global_norm == INF
