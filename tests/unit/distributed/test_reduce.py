"""Merging over ranks equals merging here; over a group of one process it changes nothing."""

from collections.abc import Sequence
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, distributed
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed import ProcessGroup, ReduceOp

from nissa.distributed import reduce
from nissa.distributed.reduce import ABSENT, FAILED, identity_rows, merge_ranks
from nissa.kernels.moments import BucketRange, Column, Layout, Moments, Thresholds, decode, merge
from nissa.kernels.reference import measure

LAYOUT = Layout(BucketRange(scale=1, min_exponent=-8, max_exponent=8))

elements = st.floats(-1e4, 1e4, width=32) | st.sampled_from([0.0, 1e-9, float("nan"), float("inf")])
part = st.lists(elements, max_size=6)


def rows_of(parts: Sequence[Sequence[float]], layout: Layout = LAYOUT) -> Tensor:
    return measure([torch.tensor(each, dtype=torch.float64) for each in parts], layout, Thresholds())


def alone(rows: Tensor, group: ProcessGroup, layout: Layout = LAYOUT) -> Tensor:
    merged, _ = merge_ranks(rows, layout, [(group,)] * len(rows), present=[True] * len(rows), failed=False)
    return merged


def assert_same(left: Moments, right: Moments) -> None:
    for field in fields(Moments):
        np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name), field.name)


@pytest.fixture
def never_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("there is nobody to talk to")

    monkeypatch.setattr(distributed, "all_reduce", refuse)


@pytest.mark.usefixtures("never_reduced")
def test_without_groups_rows_are_returned_as_they_came() -> None:
    rows, sums = rows_of([[1.0], []]), torch.ones(2, 1, dtype=torch.float64)
    merged = merge_ranks(rows, LAYOUT, [(), ()], present=[True, False], failed=False, sums=sums)
    assert merged[0] is rows
    assert merged[1] is sums


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(parts=st.lists(part, min_size=1, max_size=4), bucketed=st.booleans())
def test_a_group_of_one_changes_nothing(group: ProcessGroup, parts: list[list[float]], *, bucketed: bool) -> None:
    layout = LAYOUT if bucketed else Layout(None)
    rows = rows_of(parts, layout)
    before = rows.clone()
    assert_same(decode(alone(rows, group, layout).numpy(), layout), decode(before.numpy(), layout))
    assert rows.equal(before)


def both(
    first: Tensor,
    second: Tensor,
    group: ProcessGroup,
    *,
    present: tuple[Sequence[bool], Sequence[bool]] | None = None,
    failed: tuple[bool, bool] = (False, False),
) -> Tensor:
    """Return what the first of two ranks gets; what travels of each is recorded and exchanged here."""
    number = len(first)
    here, there = present or ([True] * number, [True] * number)
    theirs = _travelling(second, there, group, failed=failed[1])
    calls = iter(theirs)

    def exchange(table: Tensor, operation: ReduceOp.RedOpType, _group: ProcessGroup) -> None:
        other = next(calls)
        table.copy_(table + other if operation == ReduceOp.SUM else torch.maximum(table, other))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "all_reduce", exchange)
        merged, _ = merge_ranks(first, LAYOUT, [(group,)] * number, present=here, failed=failed[0])
    return merged


def _travelling(rows: Tensor, present: Sequence[bool], group: ProcessGroup, *, failed: bool) -> list[Tensor]:
    brought: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "all_reduce", lambda table, _operation, _group: brought.append(table.clone()))
        merge_ranks(rows, LAYOUT, [(group,)] * len(rows), present=present, failed=failed)
    return brought


pairs = st.lists(st.tuples(part, part), min_size=1, max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(pairs=pairs)
def test_two_ranks_get_what_merging_here_gives(
    group: ProcessGroup, pairs: list[tuple[list[float], list[float]]]
) -> None:
    first, second = (rows_of([pair[rank] for pair in pairs]) for rank in (0, 1))
    expected = merge(decode(first.numpy(), LAYOUT), decode(second.numpy(), LAYOUT))
    assert_same(decode(both(first, second, group).numpy(), LAYOUT), expected)
    assert_same(decode(both(second, first, group).numpy(), LAYOUT), expected)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(parts=st.lists(part, min_size=1, max_size=4))
def test_identity_rows_change_nothing(group: ProcessGroup, parts: list[list[float]]) -> None:
    rows = rows_of(parts)
    empty = identity_rows(len(rows), LAYOUT, "cpu")
    assert_same(decode(both(rows, empty, group).numpy(), LAYOUT), decode(rows.numpy(), LAYOUT))


def test_identity_rows_are_those_of_no_element() -> None:
    assert_same(decode(identity_rows(2, LAYOUT, "cpu").numpy(), LAYOUT), decode(rows_of([[], []]).numpy(), LAYOUT))


def test_what_a_rank_without_gradient_put_in_its_row_is_ignored(group: ProcessGroup) -> None:
    first, second = rows_of([[1.0, -2.0], [3.0], [0.0]]), rows_of([[99.0], [5.0], [7.0]])
    merged = both(first, second, group, present=([True, True, False], [False, True, False]))
    assert merged[:, Column.COUNT].tolist() == [2, 2, ABSENT]
    assert merged[0].equal(first[0])


def test_a_failure_is_told_and_its_rows_are_ignored(group: ProcessGroup) -> None:
    rows = rows_of([[1.0], []])
    garbage = torch.full_like(rows, 2**62 - 1)
    for failed, one, other in (((False, True), rows, garbage), ((True, False), garbage, rows)):
        merged = both(one, other, group, failed=failed)
        assert merged[:, Column.COUNT].tolist() == [FAILED, FAILED]
        assert merged[0, Column.ZEROS] == 0


def test_rows_of_no_group_keep_their_numbers_beside_others(group: ProcessGroup) -> None:
    rows = rows_of([[1.0], [2.0, float("inf")], [3.0]])
    expected = rows.clone()
    merged, _ = merge_ranks(rows, LAYOUT, [(), (group,), ()], present=[True, True, False], failed=False)
    assert merged[:2].equal(expected[:2])
    assert merged[:, Column.COUNT].tolist() == [1, 2, ABSENT]


def test_sums_count_without_a_gradient_but_not_those_of_a_failure(group: ProcessGroup) -> None:
    rows, sums = rows_of([[], []]), torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    of_rows = [(group,), (group,)]
    _, without = merge_ranks(rows, LAYOUT, of_rows, present=[False, False], failed=False, sums=sums)
    _, failed = merge_ranks(rows, LAYOUT, of_rows, present=[True, True], failed=True, sums=sums * torch.nan)
    assert without is not None
    assert failed is not None
    assert without.tolist() == [[1.0], [2.0]]
    assert failed.tolist() == [[0.0], [0.0]]


def test_counts_above_the_integers_of_float32_are_exact(group: ProcessGroup) -> None:
    rows = rows_of([[0.0]])
    rows[:, Column.COUNT] = rows[:, Column.ZEROS] = 2**52 - 1
    merged = both(rows, rows, group)
    assert merged[0, [Column.COUNT, Column.ZEROS]].tolist() == [2**53 - 2] * 2


def test_two_collectives_go_out_whatever_a_rank_has(group: ProcessGroup) -> None:
    rows = rows_of([[1.0], [2.0], [3.0]])
    for present, failed in (([True] * 3, False), ([False] * 3, False), ([True] * 3, True)):
        brought = _travelling(rows, present, group, failed=failed)
        assert [tuple(each.shape) for each in brought] == [(3, LAYOUT.width), (3, 3)]


def test_nothing_waits_for_a_device(group: ProcessGroup) -> None:
    # A fake tensor has no numbers, so whatever asks for one raises.
    with FakeTensorMode():
        rows = torch.zeros((3, LAYOUT.width), dtype=torch.int64)
        sums = torch.zeros((3, 1), dtype=torch.float64)
        merged, added = merge_ranks(
            rows, LAYOUT, [(group,), (), (group,)], present=[True, False, True], failed=False, sums=sums
        )
    assert merged.shape == (3, LAYOUT.width)
    assert added is not None


@pytest.mark.parametrize(("reaches", "expected"), [(["cpu", "cuda"], "cpu"), (["cuda"], "cuda")])
def test_rows_go_where_their_group_can_reach_them(reaches: list[str], expected: str) -> None:
    group = SimpleNamespace(_device_types=[torch.device(each) for each in reaches])
    assert reduce._reachable(torch.device("cpu"), group).type == expected  # type: ignore[arg-type]
