"""What metrics are called in Prometheus."""

import re

import pytest

from nissa.semconv import metrics as metric
from nissa.semconv.attributes import PARAMETER_NAME, RANK, RED_FLAG_NAME
from nissa.semconv.metrics import ALL, MetricSpec
from nissa.semconv.prometheus import label, series


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (metric.LOSS, "nissa_loss"),
        (metric.STEP, "nissa_step"),
        (metric.READBACK_LAG, "nissa_readback_lag_seconds"),
        (metric.SEED_TRANSITIONS, "nissa_seed_transitions_total"),
        (metric.SEED_REFUSED, "nissa_seed_refused_transitions_total"),
        (metric.SEED_COUNT, "nissa_seed_count"),
        (metric.STEP_DURATION, "nissa_step_duration_seconds"),
        (metric.SEED_LIFESPAN, "nissa_seed_lifespan"),
        (metric.GRADIENT_MAGNITUDE, "nissa_gradient_magnitude"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_each_kind_has_its_suffixes(spec: MetricSpec, name: str) -> None:
    assert series(spec) == name


@pytest.mark.parametrize(
    ("attribute", "name"),
    [
        (PARAMETER_NAME, "nissa_parameter_name"),
        (RED_FLAG_NAME, "nissa_red_flag_name"),
        (RANK, "dl_rank"),
        ("a-b c", "a_b_c"),
    ],
)
def test_an_attribute_becomes_a_label(attribute: str, name: str) -> None:
    assert label(attribute) == name


def test_series_are_valid_and_unique() -> None:
    names = [series(spec) for spec in ALL]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
