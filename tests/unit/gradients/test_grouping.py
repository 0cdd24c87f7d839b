from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nissa.gradients.folding import fold_names
from nissa.gradients.grouping import GroupBy, Grouping, largest
from nissa.gradients.selection import Selection, names_of
from nissa.kernels.moments import Layout, Moments, Thresholds, decode
from nissa.kernels.reference import measure


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Linear(2, 2)
        self.mlp = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2, bias=False))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.ModuleDict({"wide": nn.Linear(2, 2, bias=False)})
        self.trunk = nn.Module()
        self.trunk.layers = nn.ModuleList([Layer(), Layer()])
        self.trunk.norm = nn.LayerNorm(2)
        self.head = nn.Linear(2, 1)
        self.scale = nn.Parameter(torch.ones(1))


def streams(network: nn.Module, group_by: GroupBy) -> dict[str, str]:
    names = tuple(name for name, _ in names_of(network))
    return dict(zip(names, Grouping(group_by).streams(network, names), strict=True))


def test_parameters_have_streams_of_their_own() -> None:
    found = streams(Network(), "parameter")
    assert found
    assert all(name == stream for name, stream in found.items())


def test_parameters_of_a_module_share_a_stream() -> None:
    found = streams(Network(), "module")
    assert (
        found["trunk.layers.0.attention.weight"]
        == found["trunk.layers.0.attention.bias"]
        == ("trunk.layers.0.attention.*")
    )
    assert found["trunk.layers.0.mlp.2.weight"] == "trunk.layers.0.mlp.2.*"
    assert found["trunk.norm.bias"] == "trunk.norm.*"
    assert found["scale"] == "*"


def test_parameters_of_an_element_of_the_outermost_container_share_a_stream_and_else_those_of_a_child() -> None:
    assert streams(Network(), "block") == {
        "scale": "*",
        "stem.wide.weight": "stem.wide.*",
        **{f"trunk.layers.{i}.attention.{kind}": f"trunk.layers.{i}.*" for i in (0, 1) for kind in ("weight", "bias")},
        **{f"trunk.layers.{i}.mlp.0.{kind}": f"trunk.layers.{i}.*" for i in (0, 1) for kind in ("weight", "bias")},
        **{f"trunk.layers.{i}.mlp.2.weight": f"trunk.layers.{i}.*" for i in (0, 1)},
        "trunk.norm.weight": "trunk.*",
        "trunk.norm.bias": "trunk.*",
        "head.weight": "head.*",
        "head.bias": "head.*",
    }


def test_a_network_that_is_a_sequence_consists_of_its_elements() -> None:
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Sequential(nn.Linear(2, 2, bias=False)))
    assert streams(network, "block") == {"0.weight": "0.*", "1.0.weight": "1.*"}


def test_what_a_container_owns_itself_shares_the_containers_stream() -> None:
    class Weighted(nn.ModuleList):
        def __init__(self) -> None:
            super().__init__([nn.Linear(1, 1, bias=False)])
            self.weight = nn.Parameter(torch.ones(1))

    assert streams(nn.ModuleDict({"mixed": Weighted()}), "block") == {
        "mixed.weight": "mixed.*",
        "mixed.0.weight": "mixed.*",
    }
    assert streams(Weighted(), "block") == {"weight": "*", "0.weight": "0.*"}


@pytest.mark.parametrize("group_by", ["module", "block"])
@pytest.mark.parametrize("wrapped", ["compiled", "layer compiled", "data parallel"])
def test_wrappers_change_no_stream(group_by: GroupBy, wrapped: str) -> None:
    network: Any = Network()
    expected = streams(network, group_by)
    if wrapped == "compiled":
        network = torch.compile(network)
    elif wrapped == "layer compiled":
        network.trunk.layers[1] = torch.compile(network.trunk.layers[1])
    else:
        network = nn.DataParallel(network)
    assert streams(network, group_by) == expected


def test_parameters_that_the_model_does_not_have_are_grouped_by_their_place() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))], lr=0.1)
    names = tuple(name for name, _ in Selection("all").names(network, optimizer))
    assert Grouping("module").streams(network, names) == ("optimizer.group0.*", "optimizer.group0.*")
    assert Grouping("block").streams(network, names) == ("optimizer.*", "optimizer.*")


def test_a_network_that_grows_or_changes_its_structure_is_looked_at_anew() -> None:
    network = nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(1, 1, bias=False)})})
    wider, grouping, names = nn.Module(), Grouping("block"), ("a.b.weight",)
    wider.a = nn.Module()
    wider.a.b = nn.ModuleList([nn.Linear(1, 1)])
    assert grouping.streams(network, names) == ("a.*",)
    assert grouping.streams(wider, ("a.b.0.weight",)) == ("a.b.0.*",)
    wider.a.b = nn.Linear(1, 1, bias=False)
    assert grouping.streams(wider, names) == ("a.*",)
    wider.a = nn.ModuleDict({"b": nn.Linear(1, 1, bias=False)})
    assert grouping.streams(wider, names) == ("a.b.*",)


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (6, {"*", "stem.wide.*", "trunk.layers.0.*", "trunk.layers.1.*", "trunk.*", "head.*"}),
        (5, {"*", "stem.wide.*", "trunk.layers.0.*", "trunk.layers.1.*"}),
        (3, {"*", "stem.wide.*", "trunk.layers.*"}),
        (1, {"*"}),
    ],
    ids=["all fit", "what the network owns first", "then the layers", "one"],
)
def test_the_bound_holds_for_what_is_left_after_grouping(most: int, expected: set[str]) -> None:
    names = tuple(streams(Network(), "block").values())
    found, groups = fold_names(names, most)
    assert set(found) == expected
    for name, row in zip(names, groups, strict=True):
        assert name.startswith(found[row].removesuffix("*"))


def moments_of(*rows: list[float]) -> Moments:
    layout = Layout(buckets=None)
    return decode(measure([torch.tensor(row) for row in rows], layout, Thresholds()).numpy(), layout)


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize("k", range(1, 10))
def test_the_largest_rows_are_those_that_are_not_finite_and_then_those_of_the_largest_norm(k: int) -> None:
    moments = moments_of([0.0], [1.0, NAN], [3.0, 4.0], [INFINITE], [1.0], [], [2.0, -INFINITE])
    order = [3, 6, 1, 2, 4, 0, 5]
    assert largest(moments, k).tolist() == sorted(order[:k])
    assert largest(moments, k).dtype == np.intp


def test_of_rows_that_are_equally_large_the_first_is_taken() -> None:
    assert largest(moments_of([1.0], [2.0], [-2.0], [2.0]), 2).tolist() == [1, 2]


@given(values=st.lists(st.floats(width=32), max_size=12), k=st.integers(1, 14))
def test_no_row_that_is_left_out_is_larger_than_one_that_is_taken(values: list[float], k: int) -> None:
    moments = moments_of(*([value] for value in values)) if values else moments_of()
    taken = largest(moments, k).tolist()
    sizes = [abs(value) if np.isfinite(value) else INFINITE for value in values]
    assert len(taken) == min(k, len(values))
    assert taken == sorted(set(taken))
    left = [size for row, size in enumerate(sizes) if row not in taken]
    assert max(left, default=0.0) <= min((sizes[row] for row in taken), default=INFINITE)
