"""`nissa.integrations.accelerate`: the values of each step are those of the same training in plain PyTorch."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

import nissa
from nissa import EventType
from nissa.integrations import lightning, transformers
from nissa.integrations.accelerate import NissaTracker
from tests.trainers.seen import BATCH, BATCHES, Seen, batches, data, mse, network, train_plainly

pytestmark = pytest.mark.full


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def train(
    tracker: NissaTracker | None,
    *,
    epochs: int = 1,
    accumulate: int = 1,
    clip: float | None = None,
    end: bool = True,
    load: Path | None = None,
    save: Path | None = None,
) -> torch.nn.Module:
    accelerator = Accelerator(cpu=True, log_with=tracker, gradient_accumulation_steps=accumulate)
    if tracker is not None:
        accelerator.init_trackers("regression", config={"lr": 0.1})
    plain = network()
    model, optimizer, loader = accelerator.prepare(plain, torch.optim.SGD(plain.parameters(), lr=0.1), batches(data()))
    test = accelerator.prepare(batches(data(1)))
    if load is not None:
        accelerator.load_state(str(load))
    for _ in range(epochs):
        for batch in loader:
            with accelerator.accumulate(model):
                loss = mse(model, batch)
                accelerator.backward(loss)
                if clip is not None and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
        with torch.no_grad():
            evaluated = sum(mse(model, batch).item() for batch in test) / BATCHES
        accelerator.log({"eval_loss": evaluated, "eval_accuracy": 0.75, "temperature": 2.5})
    if save is not None:
        accelerator.save_state(str(save))
    if end:
        accelerator.end_training()
    return plain


@pytest.mark.parametrize(
    ("settings", "rel"),
    [({"epochs": 2}, 1e-9), ({"accumulate": 2}, 1e-9), ({"clip": 0.1}, 1e-9), ({"accumulate": 2, "clip": 0.1}, 1e-9)],
    ids=["two epochs", "accumulation", "clipping", "both"],
)
def test_each_step_has_the_loss_and_the_gradients_that_the_optimizer_used(
    seen: Seen, settings: dict[str, Any], rel: float
) -> None:
    train(NissaTracker(**seen.settings()), **settings)
    truth = train_plainly(**settings)
    seen.agrees(truth, rel=rel)
    clipped = [step.clip_norm for step in seen.steps]
    assert clipped == (pytest.approx(truth.norms) if "clip" in settings else [None] * len(truth.losses))
    assert seen.phases == {"data", "forward", "backward", "optimizer"}


def test_the_weights_are_those_of_a_training_without_the_tracker(seen: Seen) -> None:
    with_tracker = train(NissaTracker(**seen.settings()), accumulate=2, clip=0.1)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    without = train(None, accumulate=2, clip=0.1)
    for one, other in zip(with_tracker.parameters(), without.parameters(), strict=True):
        assert torch.equal(one, other)


def test_epochs_validations_and_metrics_are_those_of_the_script(seen: Seen) -> None:
    model = train(NissaTracker(**seen.settings()), epochs=2)
    assert seen.epochs == [0, 1]
    found = seen.validations
    assert [each.epoch for each in found] == [0, 1]
    assert found[-1].loss == pytest.approx(sum(mse(model, each).item() for each in batches(data(1))) / BATCHES)
    assert [each.accuracy for each in found] == [0.75, 0.75]
    assert seen.scalars("temperature")[-1] == 2.5
    assert seen.items("samples") == 2 * BATCHES * BATCH


def test_everything_is_restored_at_the_end(seen: Seen) -> None:
    tracker = NissaTracker(**seen.settings())
    before = vars(torch.Tensor)["backward"]
    train(tracker, end=False)
    assert tracker.tracker is nissa.current_run()
    assert vars(torch.Tensor)["backward"] is not before
    tracker.finish()
    assert vars(torch.Tensor)["backward"] is before
    assert nissa.current_run() is None
    assert tracker.tracker is None
    (ended,) = seen.of_type(EventType.TRAINING_ENDED)
    assert ended.data.get("error") is None


def test_a_run_that_is_active_is_joined_and_stays_open(seen: Seen) -> None:
    with nissa.start(**seen.settings()) as run:
        train(NissaTracker())
        assert nissa.current_run() is run
    assert len(seen.steps) == BATCHES


def test_a_training_that_goes_on_from_a_checkpoint_continues_its_run(seen: Seen, tmp_path: Path) -> None:
    settings = seen.settings(files__directory=tmp_path / "runs")
    train(NissaTracker(**settings), save=tmp_path / "checkpoint")
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    tracker = NissaTracker(**settings)
    train(tracker, load=tmp_path / "checkpoint")
    first, empty, second = [event.data["run_id"] for event in seen.of_type(EventType.TRAINING_STARTED)]
    assert first == second != empty
    seen.agrees(train_plainly(epochs=2))
    assert seen.epochs == [0, 1]
    (saved,) = seen.of_type(EventType.CHECKPOINT_SAVED)
    assert saved.data["path"] == str(tmp_path / "checkpoint")
    assert nissa.current_run() is None


def test_a_checkpoint_without_a_run_and_one_that_is_loaded_later_begin_nothing_new(seen: Seen, tmp_path: Path) -> None:
    train(None, save=tmp_path / "checkpoint")
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    train(NissaTracker(**seen.settings()), load=tmp_path / "checkpoint")
    assert len(seen.of_type(EventType.TRAINING_STARTED)) == 1
    assert len(seen.steps) == BATCHES


def test_the_constructors_of_all_trainers_have_one_signature() -> None:
    signatures = {
        inspect.signature(each) for each in (NissaTracker, lightning.NissaCallback, transformers.NissaCallback)
    }
    assert len(signatures) == 1
    assert list(signatures.pop().parameters) == ["profile", "validation_loss", "validation_accuracy", "settings"]


def test_a_training_that_goes_on_within_an_epoch_continues_its_trace(seen: Seen, tmp_path: Path) -> None:
    settings = seen.settings(files__directory=tmp_path / "runs")
    for part in ("first", "second"):
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        accelerator = Accelerator(cpu=True, log_with=NissaTracker(**settings))
        accelerator.init_trackers("regression")
        plain = network()
        model, optimizer, loader = accelerator.prepare(
            plain, torch.optim.SGD(plain.parameters(), lr=0.1), batches(data())
        )
        if part == "second":
            accelerator.load_state(str(tmp_path / "checkpoint"))
            loader = accelerator.skip_first_batches(loader, 2)
        for number, batch in enumerate(loader):
            accelerator.backward(mse(model, batch))
            optimizer.step()
            optimizer.zero_grad()
            if part == "first" and number == 1:
                accelerator.save_state(str(tmp_path / "checkpoint"))
                break
        accelerator.end_training()
    seen.agrees(train_plainly())
    before, after = seen.of_type(EventType.EPOCH_STARTED)
    assert (before.epoch, after.epoch) == (0, 0)
    assert before.data["trace_id"] == after.data["trace_id"]
