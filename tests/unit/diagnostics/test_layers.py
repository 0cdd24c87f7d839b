"""Gradients layer by layer, as a snapshot keeps them."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from nissa.diagnostics.layers import LayerGradients, layers_of, medians
from nissa.hub.measurements import GradientHealth, GradientsMeasured
from nissa.kernels import reference
from nissa.kernels.moments import Layout, Thresholds, decode


def sample(*rows: list[float], **fields: Any) -> GradientsMeasured:
    layout = Layout()
    packed = reference.measure([torch.tensor(row, dtype=torch.float64) for row in rows], layout, Thresholds())
    told: dict[str, Any] = {"model_name": None, "names": tuple("abcdefgh"[: len(rows)])} | fields
    return GradientsMeasured(
        env_id=None,
        step=1,
        time_unix_nano=1,
        moments=decode(packed.numpy(), layout),
        health=GradientHealth(score=1.0, global_norm=1.0, layers=len(rows)),
        lag=0.0,
        **told,
    )


def test_a_layer_has_the_statistics_of_its_gradient() -> None:
    values = [3.0, -4.0, 0.0, 1e4]
    (found,) = layers_of([sample(values)], {50.0: 0.5, 100.0: 1.0})
    assert (found.name, found.model_name, found.nonfinite) == ("a", None, 0)
    moments = [np.linalg.norm(values), np.mean(values), np.std(values, ddof=1)]
    assert [found.norm, found.mean, found.std] == pytest.approx(moments)
    assert found.abs_max == 1e4
    assert (found.zero_fraction, found.vanishing_fraction, found.exploding_fraction) == (0.25, 0.25, 0.25)
    assert found.percentiles == {50.0: pytest.approx(3.0, rel=0.5), 100.0: 1e4}
    assert (found.weight_norm, found.update_ratio) == (None, None)


def test_what_a_layer_lacks_is_absent_and_what_is_broken_is_counted() -> None:
    one, broken = layers_of([sample([2.0], [math.nan, math.inf])], {50.0: 0.5})
    assert (one.std, one.mean, one.nonfinite) == (None, 2.0, 0)
    assert (broken.norm, broken.mean, broken.percentiles, broken.nonfinite) == (None, None, {}, 2)


def test_weights_are_told_where_they_were_measured() -> None:
    weights = {"weight_norms": np.array([2.0, math.nan]), "update_ratios": np.array([0.1, math.nan])}
    found = layers_of([sample([1.0], [1.0], **weights)], {})
    assert [each.weight_norm for each in found] == [2.0, pytest.approx(math.nan, nan_ok=True)]
    assert [each.update_ratio for each in found] == [0.1, None]
    assert layers_of([sample([1.0])], {})[0].weight_norm is None


def test_layers_of_several_models_have_labels_of_their_own() -> None:
    found = layers_of([sample([1.0]), sample([1.0], model_name="critic")], {})
    assert [each.label for each in found] == ["a", "critic:a"]


def test_a_percentile_is_the_median_of_the_layers_that_have_it() -> None:
    told: list[dict[float, float]] = [{50.0: 1.0, 99.0: 9.0}, {50.0: 2.0}, {50.0: 6.0, 99.0: math.inf}, {}]
    found = medians([LayerGradients(name="a", percentiles=each) for each in told])
    assert found == {50.0: 2.0, 99.0: 9.0}
    assert medians([]) == {}
