"""A network that grows and shrinks while it trains: streams follow it at the next sampled step."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import SGD

from nissa import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.gradients.conftest import Lab

HOST = ("0.weight", "0.bias", "2.weight", "2.bias")
GROWN = ("1.weight", "1.bias")


class Trainer:
    """A host with a slot between its layers, and the loop that trains it."""

    def __init__(self, lab: "Lab", host: nn.Sequential) -> None:
        self.lab, self.host = lab, host
        self.host[1] = nn.Identity()
        self.optimizer = SGD(host.parameters(), lr=0.01)
        lab.env.watch(host, self.optimizer)

    def step(self) -> tuple[str, ...]:
        self.optimizer.zero_grad()
        self.host(torch.randn(5, 4)).square().mean().backward()
        self.optimizer.step()
        return self.lab.samples[-1].names

    def graft(self) -> nn.Module:
        self.host[1] = nn.Linear(8, 8)
        self.optimizer.add_param_group({"params": list(self.host[1].parameters())})
        return self.host[1]

    def remove(self) -> None:
        gone = {id(parameter) for parameter in self.host[1].parameters()}
        kept: list[dict[str, Any]] = [
            group for group in self.optimizer.param_groups if not gone & {id(each) for each in group["params"]}
        ]
        self.optimizer.param_groups[:] = kept
        self.host[1] = nn.Identity()


def test_parameters_that_join_are_seen_at_the_next_step(lab: "Lab", network: nn.Sequential) -> None:
    trainer = Trainer(lab, network)
    assert trainer.step() == HOST
    trainer.graft()
    assert trainer.step() == HOST + GROWN


def test_parameters_that_leave_end_their_streams(lab: "Lab", network: nn.Sequential) -> None:
    trainer = Trainer(lab, network)
    trainer.graft()
    assert trainer.step() == HOST + GROWN
    trainer.remove()
    assert trainer.step() == HOST
    assert trainer.step() == HOST


def test_a_module_replaced_while_its_group_stays_is_not_called_by_its_old_name(
    lab: "Lab", network: nn.Sequential
) -> None:
    trainer = Trainer(lab, network)
    trainer.graft()
    trainer.step()
    network[1] = nn.Identity()
    assert trainer.step() == HOST
    assert trainer.optimizer.param_groups[1]["params"][0].grad is None


def test_a_seed_is_watched_from_germination_into_the_host(lab: "Lab", network: nn.Sequential) -> None:
    trainer = Trainer(lab, network)
    with lab.env.epoch(0):
        assert trainer.step() == HOST
        seed = lab.env.germinate("seed-1", blueprint="linear", slot="r0c0", module=trainer.graft())
        seed.advance(Stage.TRAINING)
        assert trainer.step() == HOST + GROWN
    for stage in (Stage.BLENDING, Stage.PROBATIONARY):
        seed.advance(stage)
    seed.fossilize(improvement=0.02)
    assert trainer.step() == HOST + GROWN


def test_a_culled_seed_is_gone_and_the_next_one_takes_its_place(lab: "Lab", network: nn.Sequential) -> None:
    trainer = Trainer(lab, network)
    seed = lab.env.germinate("seed-1", blueprint="linear", slot="r0c0", module=trainer.graft())
    seed.advance(Stage.TRAINING)
    trainer.step()
    trainer.remove()
    seed.cull(reason="no improvement", improvement=-0.003)
    assert trainer.step() == HOST
    lab.env.germinate("seed-2", blueprint="linear", slot="r0c0", module=trainer.graft())
    assert trainer.step() == HOST + GROWN
    assert [sample.step for sample in lab.samples] == [0, 1, 2]


def test_growth_between_sampled_steps_is_seen_at_the_next_sampled_one(
    make_lab: "Callable[..., Lab]", network: nn.Sequential
) -> None:
    lab = make_lab(gradients__every_n_steps=3)
    trainer = Trainer(lab, network)
    trainer.step()
    trainer.graft()
    trainer.step()
    trainer.step()
    trainer.step()
    assert [(sample.step, sample.names) for sample in lab.samples] == [(0, HOST), (3, HOST + GROWN)]
