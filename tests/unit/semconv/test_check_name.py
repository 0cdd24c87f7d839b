"""Names of gate checks, without values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa.semconv.cardinality import check_name


@pytest.mark.parametrize(
    ("check", "name"),
    [
        ("global_improvement_11.00%", "global_improvement"),
        ("seed_gradient_low_0.02", "seed_gradient_low"),
        ("counterfactual_not_available", "counterfactual_not_available"),
        ("epochs_3", "epochs"),
        ("gain_-1.2e-05", "gain"),
        ("gain_+0.50%", "gain"),
        ("gain_nan%", "gain"),
        ("no_nan", "no_nan"),
        ("lag_3s", "lag"),
        ("loss=0.25", "loss"),
        ("gain: 12 %", "gain"),
        ("loss_0.02_too_high", "loss_too_high"),
        ("top_5_accuracy", "top_5_accuracy"),
        ("resnet50_ready", "resnet50_ready"),
        ("seed_ready", "seed_ready"),
        ("_5", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_check_s_name_has_no_value(check: str, name: str) -> None:
    assert check_name(check) == name


@given(
    name=st.from_regex(r"[a-z]+(_[a-z]+){0,3}", fullmatch=True), value=st.floats(allow_nan=False, allow_infinity=False)
)
def test_however_a_value_is_written_the_name_is_the_same(name: str, value: float) -> None:
    for written in (f"{value:.2f}", f"{value:.2f}%", f"{value:.3e}", f"{value:g}", repr(value), f"{int(value)}"):
        assert check_name(f"{name}_{written}") == name
