"""An environment that trains: what its seeds do to it, and what they leave behind."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nissa.demo.data import Digits
from nissa.demo.graft import Graft
from nissa.demo.policy import Policy
from nissa.demo.results import report_environment
from nissa.demo.trainer import Trainer, evaluate
from nissa.events import Stage
from nissa.run.run import Run
from tests.unit.demo.conftest import HASTY, HASTY_RECIPE

NEVER = replace(HASTY, warmup_epochs=1000)
GENEROUS = replace(HASTY, isolation_gain=-1.0, counterfactual_gain=-1.0, total_improvement=-1.0)
UNFORGIVING = replace(HASTY, isolation_gain=1.0)
DISAPPOINTED = replace(GENEROUS, total_improvement=1.0)


def trained(run: Run, digits: Digits, policy: Policy, *, epochs: int, env_id: int = 0) -> Trainer:
    recipe = replace(HASTY_RECIPE, policy=policy)
    trainer = Trainer(run.environment(env_id), env_id=env_id, digits=digits, recipe=recipe)
    for epoch in range(epochs):
        trainer.run_epoch(epoch)
    return trainer


def own_weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value for name, value in trainer.host.state_dict().items() if not name.startswith("slots")}


def in_optimizer(trainer: Trainer, graft: Graft) -> int:
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    return sum(id(p) in held for p in graft.module.parameters())


def test_a_host_is_bit_for_bit_what_it_would_be_without_the_seeds_that_train_in_isolation(
    run: Run, digits: Digits
) -> None:
    bare = trained(run, digits, NEVER, epochs=5, env_id=0)
    grown = trained(run, digits, UNFORGIVING, epochs=5, env_id=1)

    assert not bare.grafts
    assert any(graft.gains for graft in grown.grafts)
    assert bare.history[-1].accuracy == grown.history[-1].accuracy
    expected = own_weights(bare)
    assert all(torch.equal(value, expected[name]) for name, value in own_weights(grown).items())


def test_a_seed_that_passes_every_gate_stays(run: Run, digits: Digits) -> None:
    trainer = trained(run, digits, GENEROUS, epochs=9)
    first = trainer.grafts[0]

    assert [record.result.gate for record in first.gates] == ["G0", "G1", "G2", "G3", "G5"]
    assert list(first.stage_epochs) == ["germinated", "training", "blending", "probationary", "fossilized"]
    assert first.alpha == 1.0
    assert in_optimizer(trainer, first) == len(list(first.module.parameters()))
    assert trainer.host.slot(first.slot).seed is first.module
    assert first.handle.improvement == first.improvement is not None


def test_only_one_seed_at_a_time_is_grafted(run: Run, digits: Digits) -> None:
    trainer = trained(run, digits, GENEROUS, epochs=6)

    assert len(trainer.grafts) == 3
    assert [graft.stage for graft in trainer.grafts].count(Stage.TRAINING) == 2
    waiting = trainer.grafts[1].gates[-1].result
    assert waiting.checks_failed == ("host_busy",)


def test_a_seed_that_does_not_help_leaves_host_and_optimizer_and_its_slot_is_used_again(
    run: Run, digits: Digits
) -> None:
    trainer = trained(run, digits, UNFORGIVING, epochs=7)
    culled = [graft for graft in trainer.grafts if graft.stage is Stage.CULLED]

    assert culled
    assert culled[0].reason == "G2: no isolation gain"
    assert all(in_optimizer(trainer, graft) == 0 for graft in culled)
    assert not any(p in trainer.optimizer.state for graft in culled for p in graft.module.parameters())
    assert [graft.slot for graft in trainer.grafts].count(culled[0].slot) > 1
    assert culled[0].blueprint != trainer.grafts[-1].blueprint
    assert culled[0].alpha == 0.0


def test_a_seed_that_was_blended_in_vain_leaves_too(run: Run, digits: Digits) -> None:
    trainer = trained(run, digits, DISAPPOINTED, epochs=9)
    first = trainer.grafts[0]

    assert first.stage is Stage.CULLED
    assert first.reason == "G5: no total improvement"
    assert "probationary" in first.stage_epochs
    assert in_optimizer(trainer, first) == 0


def test_no_seed_germinates_too_late_to_be_decided_on(run: Run, digits: Digits) -> None:
    trainer = trained(run, digits, UNFORGIVING, epochs=HASTY_RECIPE.epochs)
    report = report_environment(trainer)

    assert all(seed.outcome == "culled" for seed in report.seeds)
    assert report.epochs == HASTY_RECIPE.epochs
    assert report.baseline_accuracy == trainer.history[trainer.grafts[0].epoch].accuracy


def test_two_environments_differ_and_each_can_be_repeated(run: Run, digits: Digits) -> None:
    one, same = (trained(run, digits, NEVER, epochs=1, env_id=number) for number in (0, 1))
    other_recipe = replace(HASTY_RECIPE, seed=2)
    other = Trainer(run.environment(2), env_id=2, digits=digits, recipe=other_recipe)
    other.run_epoch(0)

    assert one.history[0].loss == same.history[0].loss != other.history[0].loss


def test_training_leaves_the_global_generator_alone(run: Run, digits: Digits) -> None:
    before = torch.random.get_rng_state()
    trained(run, digits, GENEROUS, epochs=4)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_evaluation_counts_each_class_by_itself(run: Run, digits: Digits) -> None:
    trainer = trained(run, digits, NEVER, epochs=1)
    found = evaluate(trainer.host, digits.validation)
    counts = torch.bincount(digits.validation.labels).tolist()
    total = sum(found.per_class[digit] * count for digit, count in enumerate(counts))

    assert found.accuracy == pytest.approx(total / sum(counts))
