from collections.abc import Iterable
from typing import Any

import pytest

from nissa.diagnostics.finding import Finding
from nissa.diagnostics.rulebook import RuleBook
from nissa.hub.measurements import GradientsMeasured
from tests.unit.diagnostics.readings import book, judge, sample

NAN = float("nan")
HEALTHY: dict[str, Any] = {"a": 1.0, "b": 2.0, "c": 3.0}
WARM = 12


def told(rules: RuleBook, samples: Iterable[GradientsMeasured], name: str) -> list[Finding]:
    return [found for each in samples for found in judge(rules, each) if found.name == name]


def warm(**layers: Any) -> RuleBook:
    rules = book()
    for number in range(WARM):
        assert judge(rules, sample(number, **(layers or HEALTHY))) == []
    return rules


def times(number: int, **layers: Any) -> list[GradientsMeasured]:
    return [sample(WARM + each, **layers) for each in range(number)]


def test_healthy_gradients_raise_nothing_while_all_of_them_shrink() -> None:
    rules = book()
    for number in range(200):
        norm = 0.95**number
        assert judge(rules, sample(number, a=norm, b=2 * norm, c=3 * norm)) == []
    assert not any(rules.flags.values())


def test_one_element_that_is_not_finite_is_enough() -> None:
    (found,) = told(book(), [sample(3, a=1.0, b={"nonfinite": 0.01})], "nonfinite_gradients")
    assert (found.layers, found.step, found.seen) == (("b",), 3, "Non-finite gradients in 1 layer")


def test_without_any_gradient_there_is_no_flag() -> None:
    rules = book()
    judge(rules, sample())
    assert rules.flags == {}


def test_a_layer_that_is_orders_below_the_others_vanishes() -> None:
    small: dict[str, Any] = {"a__weight": 1e-7, "b__weight": 1e-3, "c__weight": 1.0}
    (found,) = told(book(), times(3, **small), "vanishing_gradients")
    assert found.layers == ("a.weight",)
    assert told(book(), times(2, **small), "vanishing_gradients") == []


def test_layers_that_vanish_are_named_worst_first() -> None:
    (found,) = told(book(), times(3, a=1e-7, b=1e-9, c=1.0), "vanishing_gradients")
    assert found.layers == ("b", "a")


def test_biases_and_zeros_do_not_vanish() -> None:
    rules = book()
    assert told(rules, times(9, a__bias=1e-9, b={"norm": 0.0, "zeros": 1.0}, c=1.0), "vanishing_gradients") == []
    assert rules.flags["vanishing_gradients"] is False


def test_a_norm_far_above_its_own_median_explodes_if_it_lasts() -> None:
    loud: dict[str, Any] = {name: 1000 * norm for name, norm in HEALTHY.items()}
    (found,) = told(warm(), times(5, **loud), "exploding_gradients")
    assert found.step == WARM + 2
    assert told(warm(), times(2, **loud), "exploding_gradients") == []


def test_a_network_that_explodes_from_its_first_step_has_an_absolute_limit() -> None:
    assert told(book(), times(3, a=5e3), "exploding_gradients")
    assert told(book(), times(9, a=5e2), "exploding_gradients") == []


def test_what_explodes_does_not_become_usual() -> None:
    rules = warm()
    told(rules, times(300, a=400.0), "exploding_gradients")
    assert rules.flags["exploding_gradients"]


def test_many_elements_above_the_threshold_explode() -> None:
    (found,) = told(book(), times(3, a={"exploding": 0.5}, b=1.0), "exploding_gradients")
    assert found.layers == ("a",)


def test_norms_of_which_a_part_is_unknown_are_not_judged() -> None:
    rules = book()
    judge(rules, sample(a={"norm": 1e9, "nonfinite": 0.1}))
    assert "exploding_gradients" not in rules.flags


@pytest.mark.parametrize("after", [1, 3])
def test_a_norm_above_all_that_the_window_saw_is_a_spike_and_ends_by_itself(after: int) -> None:
    rules = warm()
    (found,) = told(rules, times(after, a=100.0), "gradient_spike")
    assert found.step == WARM
    (over,) = told(rules, times(9, **HEALTHY), "gradient_spike")
    assert not over.raised


def test_there_is_no_spike_before_anything_is_usual() -> None:
    assert told(book(), [sample(0, a=1.0), sample(1, a=1e2), sample(2, a=1.0)], "gradient_spike") == []


def test_a_spike_that_lasts_is_given_up() -> None:
    rules = warm()
    told(rules, times(60, a=100.0), "gradient_spike")
    assert not rules.flags["gradient_spike"]


def test_a_layer_whose_gradient_becomes_zero_has_dead_units() -> None:
    rules = warm(a={"zeros": 0.3}, b=1.0)
    (found,) = told(rules, times(3, a={"zeros": 0.95}, b=1.0), "dead_units")
    assert found.layers == ("a",)


def test_an_embedding_that_always_was_mostly_zero_is_alive() -> None:
    assert told(warm(a={"zeros": 0.97}, b=1.0), times(20, a={"zeros": 0.98}, b=1.0), "dead_units") == []


@pytest.mark.parametrize("layer", ["a.bias", "a.weight"])
def test_zeros_from_the_first_step_are_dead_in_a_bias_and_where_there_is_nothing_else(layer: str) -> None:
    name = layer.replace(".", "__")
    assert bool(told(book(), times(3, **{name: {"zeros": 0.95}}, b=1.0), "dead_units")) == (layer == "a.bias")
    assert told(book(), times(3, **{name: {"zeros": 1.0, "norm": 0.0}}, b=1.0), "dead_units")


def test_a_layer_whose_share_collapses_has_stalled() -> None:
    (found,) = told(warm(), times(3, a=1e-6, b=2.0, c=3.0), "stalled_layer")
    assert found.layers == ("a",)


def test_beside_a_layer_that_explodes_the_others_have_not_stalled() -> None:
    assert told(warm(), times(9, a=1.0, b=2.0, c=1e6), "stalled_layer") == []


def test_a_weight_that_no_step_moves_has_stalled() -> None:
    rules = book()
    samples = [sample(n, a={"weight": 5.0}, b={"weight": 1.0 + n / 10}, c={"weight": 2.0 + n / 10}) for n in range(20)]
    (found,) = told(rules, samples, "stalled_layer")
    assert found.layers == ("a",)


def test_where_no_weight_moves_no_single_one_has_stalled() -> None:
    still: dict[str, Any] = {name: {"weight": 5.0} for name in HEALTHY}
    assert told(book(), [sample(n, **still) for n in range(40)], "stalled_layer") == []


def test_a_parameter_that_waits_for_a_gradient_it_had_has_stalled() -> None:
    rules = warm(a=1.0, b=1.0, c=1.0, d=1.0)
    without = [sample(WARM + n, idle=("d",), a=1.0, b=1.0, c=1.0) for n in range(WARM + 2)]
    (found,) = told(rules, without, "stalled_layer")
    assert found.layers == ("d",)


def test_a_parameter_that_is_gone_or_never_had_a_gradient_has_not_stalled() -> None:
    assert told(warm(), [sample(WARM + n, a=1.0, b=2.0) for n in range(40)], "stalled_layer") == []
    assert told(warm(), [sample(WARM + n, idle=("d",), **HEALTHY) for n in range(40)], "stalled_layer") == []


def test_health_below_its_limit_is_poor() -> None:
    poor: dict[str, Any] = {name: {"vanishing": 0.9, "exploding": 0.5} for name in HEALTHY}
    (found,) = told(book(), times(3, **poor), "poor_gradient_health")
    assert found.seen == "Gradient health poor (0.00)"
    assert set(found.layers) == set(HEALTHY)


def test_a_norm_that_changed_while_samples_were_lost_is_no_spike() -> None:
    loud: dict[str, Any] = {name: 30 * norm for name, norm in HEALTHY.items()}
    assert told(warm(), times(3, **loud), "gradient_spike")
    assert told(warm(), [sample(WARM + 40, missed=40, **loud), *times(30, **loud)], "gradient_spike") == []


def test_a_share_that_changed_while_samples_were_lost_has_not_stalled() -> None:
    small: dict[str, Any] = {"a": 1e-6, "b": 2.0, "c": 3.0}
    assert told(warm(), [sample(WARM + 80, missed=80, **small), *times(30, **small)], "stalled_layer") == []


@pytest.mark.parametrize("lost", [0, 1])
def test_a_weight_stands_still_and_a_parameter_waits_only_in_samples_in_a_row(lost: int) -> None:
    def with_loss(number: int) -> int:
        return lost * (number % 8 == 7)

    still = [
        sample(n, missed=with_loss(n), a={"weight": 5.0}, b={"weight": 1.0 + n}, c={"weight": 2.0 + n})
        for n in range(30)
    ]
    assert bool(told(book(), still, "stalled_layer")) != bool(lost)
    rules = warm(a=1.0, b=1.0, c=1.0, d=1.0)
    waiting = [sample(WARM + n, missed=with_loss(n), idle=("d",), a=1.0, b=1.0, c=1.0) for n in range(30)]
    assert bool(told(rules, waiting, "stalled_layer")) != bool(lost)


def test_zeros_that_appeared_while_samples_were_lost_have_not_risen() -> None:
    dense: dict[str, Any] = {"a": {"zeros": 0.3}, "b": 1.0}
    sparse: dict[str, Any] = {"a": {"zeros": 0.95}, "b": 1.0}
    assert told(warm(**dense), times(9, **sparse), "dead_units")
    assert told(warm(**dense), [sample(WARM + 90, missed=90, **sparse), *times(30, **sparse)], "dead_units") == []
