"""Causes of different weights, from what ranks report."""

from dataclasses import replace

import pytest

from nissa.distributed.replica_causes import Cause, Divergence, diagnose
from nissa.distributed.replica_reports import Detail

NAMES = [f"{name}\tfloat32\t(4,)" for name in "abcdefgh"]
BARE = tuple("abcdefgh")
BASE = Detail(
    names=NAMES,
    digests=["x"] * 8,
    norms=[float(number) for number in range(1, 9)],
    rates=[0.1],
    settings={"0.weight_decay": "0.0"},
    forwards=10,
    wrapped=True,
)
OTHER = replace(BASE, digests=["y"] * 8)


def found(*details: Detail, equal_at: int | None = 5, presumed: bool = False) -> Divergence:
    result = diagnose(dict(enumerate(details)), equal_at=equal_at, presumed=presumed)
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("other", "cause"),
    [
        (replace(OTHER, names=[*NAMES[:7], "h\tfloat32\t(5,)"]), Cause.LAYOUT),
        (replace(OTHER, skipped=1), Cause.SKIPPED_STEP),
        (replace(OTHER, rates=[0.2]), Cause.LEARNING_RATE),
        (replace(OTHER, settings={"0.weight_decay": "0.1"}), Cause.OPTIMIZER_SETTINGS),
        (replace(OTHER, clip=1.0), Cause.CLIPPING),
        (replace(OTHER, norms=[number / 3 for number in range(1, 9)]), Cause.CLIPPING),
        (replace(OTHER, norms=[float(number**2) for number in range(2, 10)]), Cause.UNREDUCED),
        (replace(OTHER, forwards=11), Cause.SKIPPED_STEP),
        (replace(BASE, digests=["y", *["x"] * 7]), Cause.CORRUPTION),
        (OTHER, Cause.UPDATE),
        (replace(OTHER, norms=[None] * 8), Cause.UPDATE),
    ],
)
def test_a_pattern_has_its_cause(other: Detail, cause: Cause) -> None:
    result = found(BASE, BASE, other)
    assert result.cause is cause
    assert result.differing == (2,)


def test_weights_that_were_never_equal_are_initial_ones() -> None:
    assert found(BASE, OTHER, equal_at=None).cause is Cause.INITIAL_WEIGHTS


def test_gradients_without_a_wrapper_were_not_averaged() -> None:
    one, other = replace(BASE, wrapped=False), replace(OTHER, wrapped=False, norms=[float(n**2) for n in range(2, 10)])
    assert found(one, other).cause is Cause.UNWRAPPED
    assert found(one, other, presumed=True).cause is Cause.UNWRAPPED


@pytest.mark.parametrize("known", [{"received": True}, {"digests": [*["x"] * 4, *["y"] * 4]}])
def test_presumed_replicas_with_something_deliberate_are_none(known: dict[str, object]) -> None:
    norms = [float(n**2) for n in range(2, 10)]
    other = replace(OTHER, wrapped=False, norms=norms, **known)  # type: ignore[arg-type]  # fields of the class
    assert diagnose({0: replace(BASE, wrapped=False), 1: other}, equal_at=0, presumed=True) is None


def test_presumed_replicas_with_equal_gradients_are_averaged_by_hand_and_left_alone() -> None:
    assert diagnose({0: replace(BASE, wrapped=False), 1: OTHER}, equal_at=0, presumed=True) is None


def test_ranks_without_a_majority_are_all_named() -> None:
    assert found(BASE, OTHER).differing == (0, 1)
    third = replace(BASE, digests=["z"] * 8)
    assert found(BASE, OTHER, third).differing == (0, 1, 2)
    assert found(BASE, BASE, OTHER, OTHER).differing == (0, 1, 2, 3)


def test_layers_are_those_that_differ_in_the_order_of_the_model() -> None:
    assert found(BASE, OTHER).layers == BARE
    assert found(BASE, replace(BASE, digests=["x", "y", *["x"] * 5, "y"])).layers == ("b", "h")
    assert found(BASE, replace(OTHER, names=[*NAMES[:7], "h\tfloat32\t(5,)"])).layers == ("h",)


def test_evidence_has_the_values_of_each_rank() -> None:
    assert found(BASE, replace(OTHER, rates=[0.2])).evidence == ("learning_rates=0.1 (rank 0), 0.2 (rank 1)",)
    assert found(BASE, replace(OTHER, clip=1.0)).evidence == ("max_norm=none (rank 0), 1 (rank 1)",)
    many = [BASE] * 9 + [replace(OTHER, rates=[0.2])]
    (text,) = found(*many).evidence
    assert text.count("(rank ") == 8
    assert "0.2 (rank 9)" in text
    assert text.endswith(", ...")
