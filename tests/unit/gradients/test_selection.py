import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from nissa.gradients.selection import Selection, clean_name, names_of


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp = nn.Linear(2, 2), nn.Linear(2, 2)


@pytest.fixture
def network() -> nn.Module:
    return nn.ModuleDict({"encoder": nn.ModuleList([Block(), Block()]), "head": nn.Linear(2, 1)})


def parameter_names(network: nn.Module) -> list[str]:
    return [name for name, _ in names_of(network)]


def trained(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.1)


def chosen(layers: list[str] | str, network: nn.Module) -> list[str]:
    return [name for name, _ in Selection(layers).names(network, trained(network))]


def _rename(network: Any, _optimizer: torch.optim.Optimizer) -> None:
    network.renamed = network.head
    del network.head


def _replace_module(network: Any, optimizer: torch.optim.Optimizer) -> None:
    network.head = nn.Linear(2, 1)
    optimizer.param_groups[-1]["params"] = [*network.head.parameters()]


def _replace_parameter(network: Any, _optimizer: torch.optim.Optimizer) -> None:
    network.head.weight = nn.Parameter(torch.zeros(1, 2))  # the optimizer keeps the old one


def _add_module(network: Any, optimizer: torch.optim.Optimizer) -> None:
    network.more = nn.Linear(2, 2)
    optimizer.add_param_group({"params": network.more.parameters()})


def _remove_module(network: Any, _optimizer: torch.optim.Optimizer) -> None:
    del network.body


def _swap(network: Any, _optimizer: torch.optim.Optimizer) -> None:
    network.body.weight, network.other.weight = network.other.weight, network.body.weight


def _regroup(_network: Any, optimizer: torch.optim.Optimizer) -> None:
    first, second = optimizer.param_groups[:2]
    first["params"], second["params"] = first["params"][:1], first["params"][1:] + second["params"]


def _tie(network: Any, _optimizer: torch.optim.Optimizer) -> None:
    network.other.weight = network.body.weight


@pytest.mark.parametrize(
    "change",
    [_rename, _replace_module, _replace_parameter, _add_module, _remove_module, _swap, _regroup, _tie],
    ids=lambda change: change.__name__,
)
def test_names_after_a_change_are_those_of_a_first_look(change: Callable[..., None]) -> None:
    network: Any = nn.Module()
    network.body, network.other, network.head = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1)
    stranger = nn.Parameter(torch.zeros(1))
    groups = [*network.body.parameters(), stranger], [*network.other.parameters()], [*network.head.parameters()]
    optimizer = torch.optim.SGD([{"params": group} for group in groups], lr=0.1)
    selection = Selection("all")
    before = selection.names(network, optimizer)
    again = selection.names(network, optimizer)
    assert [(name, id(parameter)) for name, parameter in again] == [(name, id(each)) for name, each in before]
    change(network, optimizer)
    for _ in range(2):
        found, fresh = selection.names(network, optimizer), Selection("all").names(network, optimizer)
        assert [(name, id(parameter)) for name, parameter in found] == [(name, id(each)) for name, each in fresh]


def test_names_of_an_unchanged_model_need_no_walk(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    selection, optimizer = Selection("all"), trained(network)
    names = [name for name, _ in selection.names(network, optimizer)]
    monkeypatch.setattr(selection, "_all", None)
    assert [name for name, _ in selection.names(network, optimizer)] == names


def test_a_selection_keeps_no_parameter_and_no_module() -> None:
    network = nn.Sequential(Block(), Block())
    selection, optimizer = Selection("all"), trained(network)
    selection.names(network, optimizer)
    parts: list[Any] = [*network.modules(), *network.parameters()]
    references = [weakref.ref(part) for part in parts]
    del network, optimizer, parts
    gc.collect()
    assert [reference() for reference in references if reference() is not None] == []


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
        ("_forward_module.layer.weight", "layer.weight"),
        ("_module.layer.weight", "layer.weight"),
        ("layers._module.weight", "layers._module.weight"),
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


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["re:head[.].*"], ["head.weight", "head.bias"]),
        ([r"re:encoder\.\d\.mlp\.weight"], ["encoder.0.mlp.weight", "encoder.1.mlp.weight"]),
        (["re:head"], []),
        (["re:(?i)HEAD.bias"], ["head.bias"]),
        (["re:.*bias|head.*", "!re:encoder.*"], ["head.weight", "head.bias"]),
    ],
    ids=["prefix", "digits", "whole names", "flags", "alternatives"],
)
def test_expressions_select_by_whole_name(network: nn.Module, layers: list[str], expected: list[str]) -> None:
    assert chosen(layers, network) == expected


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["!encoder.*"], ["head.weight", "head.bias"]),
        (["!encoder.*", "!*.bias"], ["head.weight"]),
        (["head.*", "!*.bias"], ["head.weight"]),
        (["!*.bias", "head.*"], ["head.weight"]),
        (["all", "!encoder.*"], ["head.weight", "head.bias"]),
        (["head.*", "!head.*"], []),
    ],
    ids=["only one negation", "only negations", "taken out", "order does not count", "of all", "nothing left"],
)
def test_a_negation_takes_out_of_what_the_others_select(
    network: nn.Module, layers: list[str], expected: list[str]
) -> None:
    assert chosen(layers, network) == expected


def test_a_lone_selector_may_be_given_as_text(network: nn.Module) -> None:
    assert chosen("head.*", network) == ["head.weight", "head.bias"]


def test_a_selector_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(ValueError, match="not a regular expression"):
        Selection(["re:("])


def test_a_glob_selects_parameters_that_the_model_does_not_have_by_their_place(network: nn.Module) -> None:
    extra = nn.Parameter(torch.ones(1))
    groups: list[dict[str, Any]] = [{"params": network.parameters()}, {"params": [extra]}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    ((name, found),) = Selection(["optimizer.*"]).names(network, optimizer)
    assert name == "optimizer.group1.0"
    assert found is extra


def test_names_are_those_that_the_optimizer_has_with_a_gradient_or_without_in_the_order_of_its_groups(
    network: nn.Module,
) -> None:
    named = dict(names_of(network))
    groups: list[dict[str, Any]] = [{"params": [named["head.bias"]]}, {"params": [named["encoder.0.mlp.weight"]]}]
    named["head.bias"].grad = torch.ones(1)
    found = Selection("all").names(network, torch.optim.SGD(groups, lr=0.1))
    assert [name for name, _ in found] == ["head.bias", "encoder.0.mlp.weight"]
    assert all(parameter is named[name] for name, parameter in found)


def test_a_parameter_that_the_optimizer_has_twice_is_named_once(network: nn.Module) -> None:
    optimizer = trained(network)
    optimizer.param_groups.append({**optimizer.param_groups[0]})
    found = Selection("all").names(network, optimizer)
    assert [name for name, _ in found] == parameter_names(network)


def test_parameters_that_join_leave_or_are_replaced_are_seen_at_once() -> None:
    network = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)})
    selection = Selection(["*.weight"])
    before = selection.names(network, trained(network))
    network["a"].weight = nn.Parameter(torch.ones(1, 1))
    del network["b"]
    network["c"] = nn.Linear(1, 1)
    after = selection.names(network, trained(network))
    assert [name for name, _ in before] == ["a.weight", "b.weight"]
    assert [name for name, _ in after] == ["a.weight", "c.weight"]
    assert after[0][1] is network["a"].weight


def test_a_pattern_that_matches_nothing_is_told_with_near_misses(
    network: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    selection = Selection(["head.*", "heads.weight", "zzz.*", "!re:head.biass"])
    with caplog.at_level(logging.WARNING, "nissa"):
        unmatched = selection.warn_unmatched(network, trained(network))
    assert unmatched == ["heads.weight", "zzz.*", "!re:head.biass"]
    near, far, negated = (record.getMessage() for record in caplog.records)
    assert near.startswith("gradients.layers: 'heads.weight' matches none of the model's 10 parameters so far;")
    assert "head.weight" in near
    assert far.endswith("for example: encoder.0.attention.weight, encoder.0.attention.bias, encoder.0.mlp.weight.")
    assert "'!re:head.biass'" in negated
    assert "for example: head.bias" in negated


@pytest.mark.parametrize("layers", ["all", ["*.weight", "head.*"], ["!head.*"], ["re:head.*", "type:Linear"]], ids=str)
def test_selectors_that_match_are_not_told(
    network: nn.Module, caplog: pytest.LogCaptureFixture, layers: list[str] | str
) -> None:
    with caplog.at_level(logging.WARNING, "nissa"):
        assert Selection(layers).warn_unmatched(network, trained(network)) == []
    assert not caplog.records


def test_a_selector_that_only_the_optimizers_own_parameters_match_is_not_told(
    network: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer = torch.optim.SGD([*network.parameters(), nn.Parameter(torch.ones(1))], lr=0.1)
    assert Selection(["optimizer.group0.*"]).warn_unmatched(network, optimizer) == []
    assert not caplog.records


def test_selectors_that_leave_nothing_between_them_are_told(
    network: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    assert Selection(["head.*", "!*"]).warn_unmatched(network, trained(network)) == []
    assert "'head.*', '!*' leave none of the model's 10 parameters; drop one that begins with '!'." in caplog.text


def test_without_parameters_nothing_matches(caplog: pytest.LogCaptureFixture) -> None:
    empty = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    empty.param_groups.clear()
    assert Selection(["*.weight"]).warn_unmatched(nn.Module(), empty) == ["*.weight"]
    assert "none of the model's 0 parameters so far; parameters are for example: none." in caplog.text
