"""Which streams a watched network has: by module, by block, and the largest alone."""

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.optim import SGD

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.gradients.conftest import Lab


@pytest.mark.parametrize(
    ("group_by", "names"),
    [
        ("parameter", ("0.weight", "0.bias", "2.weight", "2.bias")),
        ("module", ("0.*", "2.*")),
        ("block", ("0.*", "2.*")),
    ],
)
def test_parameters_share_streams_as_configured(
    make_lab: "Callable[..., Lab]", network: nn.Module, group_by: str, names: tuple[str, ...]
) -> None:
    lab = make_lab("research", gradients__group_by=group_by)
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    network(torch.ones(3, 4)).square().mean().backward()
    gradients = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    optimizer.step()
    (sample,) = lab.samples
    assert sample.names == names
    assert int(sample.moments.count.sum()) == sum(gradient.numel() for gradient in gradients)
    assert sample.moments.global_norm == pytest.approx(float(torch.nn.utils.get_total_norm(gradients)), rel=1e-6)
    assert sample.health.layers == 4
    assert sample.weight_norms is not None
    assert sample.weight_norms.shape == (len(names),)


def test_blocks_of_a_deep_network_are_the_elements_of_its_list(make_lab: "Callable[..., Lab]") -> None:
    lab = make_lab(gradients__group_by="block")
    network = nn.ModuleDict(
        {
            "embed": nn.Linear(2, 2),
            "layers": nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2)]),
        }
    )
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert set(lab.samples[0].names) == {"embed.*", "layers.*"}
    plain = nn.Module()
    plain.embed, plain.layers = network["embed"], network["layers"]
    other = SGD(plain.parameters(), lr=0.1)
    lab.env.watch(plain, other, name="plain")
    other.step()
    assert lab.samples[1].names == ("embed.*", "layers.0.*", "layers.1.*")


def test_a_network_that_grows_gets_streams_for_what_it_grew(make_lab: "Callable[..., Lab]") -> None:
    lab = make_lab(gradients__group_by="module")
    network = nn.Sequential(nn.Linear(2, 2))
    optimizer = SGD(network.parameters(), lr=0.1)
    lab.env.watch(network, optimizer)
    for _ in range(2):
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        grown = nn.Linear(2, 2)
        network.append(grown)
        optimizer.add_param_group({"params": list(grown.parameters())})
    assert [sample.names for sample in lab.samples] == [("0.*",), ("0.*", "1.*")]
