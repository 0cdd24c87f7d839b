import logging
from typing import Any

import pytest
import torch
from torch import nn

from nissa.gradients.capture import parameter_names
from nissa.gradients.selection import Selection, clean_name, names_of


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp = nn.Linear(2, 2), nn.Linear(2, 2)


@pytest.fixture
def network() -> nn.Module:
    network = nn.ModuleDict({"encoder": nn.ModuleList([Block(), Block()]), "head": nn.Linear(2, 1)})
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    return network


def chosen(patterns: list[str] | str, network: nn.Module) -> list[str]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return [name for name, _ in Selection(patterns).gradients(network, optimizer)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("layer.weight", "layer.weight"),
        ("weight", "weight"),
        ("_orig_mod.layer.weight", "layer.weight"),
        ("module.layer.weight", "layer.weight"),
        ("module._orig_mod.layer.weight", "layer.weight"),
        ("_orig_mod.module.layer.weight", "layer.weight"),
        ("_fsdp_wrapped_module.layer._fsdp_wrapped_module.weight", "layer.weight"),
        ("layers.0._orig_mod.weight", "layers.0.weight"),
        ("layers.0._checkpoint_wrapped_module.weight", "layers.0.weight"),
        ("layers.module.weight", "layers.module.weight"),
        ("module", "module"),
        ("_orig_mod", "_orig_mod"),
        ("module.module", "module"),
    ],
)
def test_wrappers_leave_no_trace_in_a_name(name: str, expected: str) -> None:
    assert clean_name(name) == expected


def test_names_that_would_be_the_same_when_cleaned_stay_apart() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module, self.weight = nn.Linear(2, 2), nn.Parameter(torch.ones(1))

    network = Own()
    assert parameter_names(network) == ["weight", "module.weight", "bias"]
    assert [parameter for _, parameter in names_of(network)] == list(network.parameters())


def test_all_selects_everything(network: nn.Module) -> None:
    assert chosen("all", network) == parameter_names(network)
    assert len(parameter_names(network)) == 10


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["head.*"], ["head.weight", "head.bias"]),
        (["*.bias"], [f"encoder.{i}.{kind}.bias" for i in (0, 1) for kind in ("attention", "mlp")] + ["head.bias"]),
        (["encoder.?.mlp.weight"], ["encoder.0.mlp.weight", "encoder.1.mlp.weight"]),
        (["encoder.[1].*.weight", "head.bias"], ["encoder.1.attention.weight", "encoder.1.mlp.weight", "head.bias"]),
        (["HEAD.*"], []),
        (["head"], []),
        (["head.*", "*.weight", "head.weight"], []),
    ],
    ids=["block", "kind", "one character", "several", "case counts", "whole names", "overlapping"],
)
def test_globs_select_by_name(network: nn.Module, patterns: list[str], expected: list[str]) -> None:
    found = chosen(patterns, network)
    if len(patterns) == 3:
        assert len(found) == len(set(found)) == 6
    else:
        assert found == expected


def test_a_glob_selects_parameters_that_the_model_does_not_have_by_their_place(network: nn.Module) -> None:
    extra = nn.Parameter(torch.ones(1))
    extra.grad = torch.ones(1)
    groups: list[dict[str, Any]] = [{"params": network.parameters()}, {"params": [extra]}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    found = list(Selection(["optimizer.*"]).gradients(network, optimizer))
    assert found == [("optimizer.group1.0", extra.grad)]


def test_a_pattern_that_matches_nothing_is_told_with_near_misses(
    network: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    selection = Selection(["head.*", "heads.weight", "zzz.*"])
    with caplog.at_level(logging.WARNING, "nissa"):
        assert selection.warn_unmatched(parameter_names(network)) == ["heads.weight", "zzz.*"]
    near, far = (record.getMessage() for record in caplog.records)
    assert near.startswith("gradients.layers: 'heads.weight' matches none of the model's 10 parameters so far;")
    assert "head.weight" in near
    assert far.endswith("for example: encoder.0.attention.weight, encoder.0.attention.bias, encoder.0.mlp.weight.")


@pytest.mark.parametrize("patterns", ["all", ["*.weight", "head.*"]], ids=str)
def test_patterns_that_match_are_not_told(
    network: nn.Module, caplog: pytest.LogCaptureFixture, patterns: list[str] | str
) -> None:
    with caplog.at_level(logging.WARNING, "nissa"):
        assert Selection(patterns).warn_unmatched(parameter_names(network)) == []
    assert not caplog.records


def test_a_model_without_parameters_matches_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert Selection(["*.weight"]).warn_unmatched([]) == ["*.weight"]
    assert "none of the model's 0 parameters so far; there are for example: none." in caplog.text
