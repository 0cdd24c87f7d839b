import logging
import random
import re
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nissa.gradients.folding import StreamLimiter, _block, _ranges, fold_names

parts = st.sampled_from(["a", "b", "layers", "0", "1", "weight", "bias"])
names = st.lists(st.lists(parts, min_size=1, max_size=5).map(".".join), unique=True, max_size=30).map(tuple)
groups = st.lists(parts, max_size=4).map(lambda path: ".".join([*path, "*"]))
most = st.integers(1, 40)


def fold_plainly(streams: list[str], at_most: int) -> list[str]:
    """What folding means, a block at a time over all streams: too slow for thousands of them."""
    while len(set(streams)) > at_most:
        children = Counter(_block(stream) for stream in set(streams))
        block, members = max(children.items(), key=lambda item: (item[1], item[0].count("."), item[0]))
        deepest = max(stream.count(".") for stream in streams)
        folded = {
            stream for stream in streams if (_block(stream) == block if members > 1 else stream.count(".") == deepest)
        }
        others = len(set(streams) - (folded - {block}))  # a stream that is the block itself stays
        moved = {stream: _block(stream) for stream in folded}
        if members > 1 and len(folded - {block}) > at_most and 2 * (others + 1) <= at_most:
            ranges = _ranges(block, sorted(folded - {block}), at_most - others)
            moved = {stream: name for name, each in ranges.items() for stream in each}
        streams = [moved.get(stream, stream) for stream in streams]
    return streams


def streams(given_names: tuple[str, ...], at_most: int) -> dict[str, str]:
    """The stream of each parameter."""
    found, groups = fold_names(given_names, at_most)
    return {name: found[group] for name, group in zip(given_names, groups, strict=True)}


@given(names=names, most=most)
def test_there_are_never_more_streams_than_allowed_and_each_has_a_name_of_its_own(
    names: tuple[str, ...], most: int
) -> None:
    found, _ = fold_names(names, most)
    assert len(found) <= most
    assert len(set(found)) == len(found)


@given(names=names, most=most)
def test_every_parameter_is_in_exactly_one_stream_and_no_stream_is_empty(names: tuple[str, ...], most: int) -> None:
    found, groups = fold_names(names, most)
    assert len(groups) == len(names)
    assert set(groups.tolist()) == set(range(len(found)))


@given(names=names, most=most)
@example(names=("a", "b", "0"), most=2)
def test_a_stream_is_a_parameter_or_a_block_that_contains_it(names: tuple[str, ...], most: int) -> None:
    for name, stream in streams(names, most).items():
        block = re.sub(r"[.]?\[[^]]*\]", "", stream) if "[" in stream else stream
        assert block in (name, "*", ".*") or (block.endswith(".*") and name.startswith(block[:-1]))


@given(names=names, most=most)
def test_under_the_bound_nothing_is_folded(names: tuple[str, ...], most: int) -> None:
    found, groups = fold_names(names, max(most, len(names), 1))
    assert found == names
    assert groups.tolist() == list(range(len(names)))


@given(names=names, most=most, seed=st.integers())
def test_what_is_folded_follows_from_the_names_and_not_from_their_order(
    names: tuple[str, ...], most: int, seed: int
) -> None:
    shuffled = random.Random(seed).sample(names, len(names))  # noqa: S311 - no secret
    assert streams(tuple(shuffled), most) == streams(names, most)


@given(names=names)
def test_one_stream_takes_all(names: tuple[str, ...]) -> None:
    found, groups = fold_names(names, 1)
    assert len(found) == min(len(names), 1)
    assert set(groups.tolist()) <= {0}


@pytest.mark.parametrize(
    ("names", "most", "expected"),
    [
        (("a.0", "a.1", "a.2", "b.w", "b.b"), 3, ("a.*", "b.w", "b.b")),
        (("a.0", "a.1", "a.2", "b.w", "b.b"), 2, ("a.*", "b.*")),
        (("x", "y", "a.0", "a.1", "a.2"), 3, ("x", "y", "a.*")),
        (("x", "y", "z", "a.0", "a.1"), 3, ("*", "a.0", "a.1")),
        (("x", "y"), 1, ("*",)),
        (("a.x.w", "b.x.w"), 1, ("*",)),
        (("a.b.w", "a.b.v", "a.c.w", "a.c.v", "z"), 3, ("a.b.*", "a.c.*", "z")),
        (("a.b.w", "a.b.v", "a.c.w", "a.c.v", "z"), 2, ("a.*", "z")),
    ],
    ids=[
        "big first",
        "then the next",
        "top level kept",
        "top level folded",
        "only top level",
        "lone",
        "deep",
        "deeper",
    ],
)
def test_big_blocks_are_folded_first(names: tuple[str, ...], most: int, expected: tuple[str, ...]) -> None:
    found, _ = fold_names(names, most)
    assert sorted(found) == sorted(expected)


def test_of_blocks_of_the_same_size_the_deepest_and_then_the_last_by_name_is_folded() -> None:
    blocks = ("a", "b", "c", "d.x", "e.x", "f")
    names = tuple(f"{block}.{index}" for block in blocks for index in range(2))
    assert {streams(names, 11)[f"{block}.0"] for block in blocks} == {"a.0", "b.0", "c.0", "d.x.0", "e.x.*", "f.0"}
    assert {streams(names, 9)[f"{block}.0"] for block in blocks} == {"a.0", "b.0", "c.0", "d.x.*", "e.x.*", "f.*"}


def test_a_transformer_folds_into_its_blocks_and_keeps_the_small_ones() -> None:
    kinds = ("q.weight", "q.bias", "k.weight", "k.bias", "mlp.weight", "mlp.bias")
    network = ("embed.weight", *(f"h.{layer}.{kind}" for layer in range(48) for kind in kinds), "head.weight")
    found, groups = fold_names(network, 200)
    assert len(network) == 290
    assert len(found) <= 200
    assert {"embed.weight", "head.weight"} <= set(found)
    assert len(groups) == 290


@given(names=st.lists(st.one_of(st.lists(parts, min_size=1, max_size=5).map(".".join), groups), max_size=30), most=most)
@example(names=["d.b.b", "d.a", "d.d.a", "d.d", "b", "d.d.d", "d.b.d", "a.b.b"], most=2)  # a block that refills
@example(names=["a.1.a", "w.1.b", "a.1.*", "*", "1.1.a"], most=3)  # a group inside another that moves with it
@example(names=["*", "b.a.*", "a.a.a.a", "layers.a.a.a", "0.a.a.a"], most=3)  # a stream that is the block of others
def test_parameters_and_groups_fold_as_they_would_one_block_at_a_time(names: list[str], most: int) -> None:
    found, rows = fold_names(tuple(names), most)
    assert [found[row] for row in rows] == fold_plainly(names, most)
    assert found == tuple(dict.fromkeys(fold_plainly(names, most)))


@pytest.mark.timeout(10)
def test_ten_thousand_parameters_fold_in_far_less_than_ten_seconds() -> None:
    names = tuple(f"layers.{layer}.{part}.{kind}" for layer in range(625) for part in range(8) for kind in "wb")
    found, rows = fold_names(names, 200)
    assert len(rows) == 10_000
    assert 1 <= len(found) <= 200
    assert 4_000 < len(fold_names(names, 5_000)[0]) <= 5_000


def test_what_the_bound_folds_is_told_once_with_numbers_and_the_setting(caplog: pytest.LogCaptureFixture) -> None:
    bound = StreamLimiter(3)
    with caplog.at_level(logging.DEBUG, "nissa"):
        assert bound(("a.0", "a.1", "b.w")) == bound(("a.0", "a.1", "b.w"))
        assert not caplog.records
        found, _ = bound(("a.0", "a.1", "a.2", "b.w", "b.b"))
        bound(("a.0", "a.1", "a.2", "b.w", "b.b", "c"))
    assert found == ("a.*", "b.w", "b.b")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        "gradients.max_parameters (3): of 5 gradient streams 3 are folded into 1 of their blocks, such as a.*, and 2 stay"
    )


def test_groups_that_fit_are_no_reason_to_tell(caplog: pytest.LogCaptureFixture) -> None:
    found, rows = StreamLimiter(2)(("a.*", "a.*", "a.*", "b.*"))
    assert (found, rows.tolist()) == (("a.*", "b.*"), [0, 0, 0, 1])
    assert not caplog.records


def ranges_of(found: tuple[str, ...], path: str) -> list[range]:
    matched = [re.fullmatch(rf"{path}\[(\d+)-(\d+)\][.]\*", stream) for stream in found]
    return [range(int(each[1]), int(each[2]) + 1) for each in matched if each]


def test_a_list_of_thousands_of_parameters_is_folded_into_as_many_ranges_as_there_may_be_streams() -> None:
    names = tuple(f"blocks.{index}" for index in range(5_000))
    found, groups = fold_names(names, 200)
    assert found[:2] == ("blocks[0-24].*", "blocks[25-49].*")
    assert found[-1] == "blocks[4975-4999].*"
    assert [sorted(each) for each in ranges_of(found, "blocks")] == [
        [index for index, group in enumerate(groups) if group == number] for number in range(200)
    ]


def test_of_a_model_that_is_a_list_the_ranges_have_no_path() -> None:
    assert fold_names(tuple(str(index) for index in range(100)), 4)[0] == (
        "[0-24].*",
        "[25-49].*",
        "[50-74].*",
        "[75-99].*",
    )


def test_modules_of_a_list_are_folded_into_ranges_like_parameters() -> None:
    found, _ = fold_names(("head.weight", *(f"layers.{index}.*" for index in range(1_000))), 21)
    assert found == ("head.weight", *(f"layers[{first}-{first + 49}].*" for first in range(0, 1_000, 50)))


def test_ranges_stay_where_they_are_when_some_parameters_have_no_gradient() -> None:
    names = [f"blocks.{index}" for index in range(1_000)]
    everything, _ = fold_names(tuple(names), 100)
    some, _ = fold_names(tuple(name for index, name in enumerate(names) if index % 7), 100)
    assert some == everything


def test_names_that_are_no_numbers_are_folded_into_ranges_by_name() -> None:
    found, groups = fold_names(tuple(f"table.{letter}" for letter in "hgfedcba"), 3)
    assert found == ("table[g-h].*", "table[d-f].*", "table[a-c].*")
    assert groups.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]


def test_numbers_that_are_far_apart_still_use_the_bound() -> None:
    found, _ = fold_names(tuple(f"blocks.{10**index}" for index in range(12)), 4)
    assert found == tuple(f"blocks[{10**first}-{10 ** (first + 2)}].*" for first in range(0, 12, 3))


def test_a_member_that_is_alone_in_its_range_keeps_its_name() -> None:
    found, _ = fold_names(tuple(f"blocks.{index}" for index in range(9)), 5)
    assert found[-1] == "blocks.8"


def test_a_block_that_fits_is_never_cut_into_ranges() -> None:
    names = (*(f"a.{index}" for index in range(150)), *(f"b.{index}" for index in range(60)))
    found, _ = fold_names(names, 200)
    assert found == ("a.*", *(f"b.{index}" for index in range(60)))


def test_a_list_beside_which_there_is_little_room_is_folded_whole() -> None:
    names = (*(f"a.{index}" for index in range(5_000)), *(f"b.{index}" for index in range(150)))
    found, _ = fold_names(names, 200)
    assert found == ("a.*", *(f"b.{index}" for index in range(150)))
