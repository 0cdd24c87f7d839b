import logging

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from nissa.gradients.selection import Selection
from nissa.gradients.selectors import owner_types


class Outer:
    class Scaled(nn.Linear):
        """A class inside another."""


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 2)
        self.norm = nn.LayerNorm(2)
        self.scaled = Outer.Scaled(2, 2)
        self.head = nn.Linear(2, 3, bias=False)
        self.temperature = nn.Parameter(torch.ones(1))


@pytest.fixture
def network() -> Network:
    return Network()


def trained(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.1)


def chosen(layers: list[str], network: nn.Module) -> list[str]:
    return [name for name, _ in Selection(layers).names(network, trained(network))]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["type:LayerNorm"], ["norm.weight", "norm.bias"]),
        (["type:Linear"], ["scaled.weight", "scaled.bias", "head.weight"]),
        (["type:torch.nn.Linear"], ["scaled.weight", "scaled.bias", "head.weight"]),
        (["type:torch.nn.modules.linear.Linear"], ["scaled.weight", "scaled.bias", "head.weight"]),
        (["type:Scaled"], ["scaled.weight", "scaled.bias"]),
        (["type:Outer.Scaled"], ["scaled.weight", "scaled.bias"]),
        (["type:Network"], ["temperature"]),
        (["type:Linear", "!type:Scaled"], ["head.weight"]),
        (["!type:Linear", "!type:LayerNorm"], ["temperature", "embedding.weight"]),
        (["type:Linear", "!*.bias", "temperature"], ["temperature", "scaled.weight", "head.weight"]),
        (["type:linear"], []),
        (["type:torch.nn.functional.Linear"], []),
        (["type:nowhere.Linear"], []),
        (["type:torch.nn"], []),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else None,
)
def test_types_select_what_their_modules_own_themselves(
    network: Network, layers: list[str], expected: list[str]
) -> None:
    assert chosen(layers, network) == expected


def test_every_module_is_a_module(network: Network) -> None:
    assert len(chosen(["type:Module"], network)) == len(list(network.parameters()))


def test_a_type_means_no_parameter_that_the_model_does_not_have(network: Network) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    assert Selection(["type:Module"]).names(network, optimizer) == []
    assert [name for name, _ in Selection(["!type:Module"]).names(network, optimizer)] == ["optimizer.group0.0"]


@pytest.mark.parametrize("inside", [False, True], ids=["network", "in a network"])
def test_parametrized_weights_still_belong_to_their_module(inside: bool) -> None:
    linear = parametrizations.weight_norm(nn.Linear(2, 2))
    network: nn.Module = nn.ModuleDict({"a": linear, "b": nn.LayerNorm(2)}) if inside else linear
    found = chosen(["type:Linear"], network)
    assert len(found) == 3
    assert {id(parameter) for parameter in linear.parameters()} == {
        key for key, owner in owner_types(network).items() if issubclass(owner, nn.Linear)
    }


def test_a_tied_parameter_belongs_to_the_first_module_that_has_it(network: Network) -> None:
    network.head.weight = network.embedding.weight
    assert chosen(["type:Embedding"], network) == ["embedding.weight"]
    assert chosen(["type:Linear"], network) == ["scaled.weight", "scaled.bias"]


def test_a_name_whose_module_changes_its_type_is_decided_anew(network: Network) -> None:
    selection = Selection(["type:LayerNorm"])
    assert [name for name, _ in selection.names(network, trained(network))] == ["norm.weight", "norm.bias"]
    network.norm = nn.BatchNorm1d(2)  # type: ignore[assignment]  # that is the point
    assert selection.names(network, trained(network)) == []


@pytest.mark.parametrize(
    ("selector", "meant"),
    [
        ("type:Linaer", "type:Linear"),
        ("!type:layernorm", "type:LayerNorm"),
        ("type:my.own.Embeding", "type:Embedding"),
        ("type:Conv2d", "type:Network, type:Embedding, type:LayerNorm"),
    ],
)
def test_a_type_that_the_model_does_not_have_is_told_with_those_it_has(
    network: Network, caplog: pytest.LogCaptureFixture, selector: str, meant: str
) -> None:
    with caplog.at_level(logging.WARNING, "nissa"):
        assert Selection([selector, "all"]).warn_unmatched(network, trained(network)) == [selector]
    (message,) = caplog.messages
    assert message.startswith(f"gradients.layers: {selector!r} matches none of the model's 7 parameters so far;")
    assert f"for example: {meant}" in message


def test_a_decision_is_made_once_for_a_name_and_type(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def decide(_: Selection, name: str, owner: type | None) -> bool:
        asked.append(name)
        return owner is not None

    monkeypatch.setattr(Selection, "_decide", decide)
    selection = Selection(["type:Linear"])
    for _ in range(3):
        assert len(selection.names(network, trained(network))) == 7
    assert len(asked) == 7 == len(set(asked))
