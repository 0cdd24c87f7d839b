"""`nissa.integrations.transformers`: the values of each step are those of the same training in plain PyTorch."""

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import nissa
from nissa import EventType
from nissa.integrations.transformers import NissaCallback
from tests.trainers.seen import BATCH, BATCHES, Seen, data, mse, network, train_plainly

pytestmark = pytest.mark.full  # importing the library takes longer than the tests


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    yield
    transformers.logging.set_verbosity(before)


class Regression(nn.Module):
    """The network of the plain training, with the interface that the trainer expects."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": mse(self.network, (x, labels)), "logits": self.network(x)}


def rows(seed: int = 0) -> list[dict[str, torch.Tensor]]:
    return [{"x": x, "labels": y} for x, y in (data(seed)[row] for row in range(len(data(seed))))]


def trainer(callback: Any, folder: Path, model: nn.Module | None = None, **settings: Any) -> transformers.Trainer:
    plain: dict[str, Any] = {
        "num_train_epochs": 1,
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "logging_strategy": "no",
        **settings,
    }
    arguments = transformers.TrainingArguments(
        str(folder), per_device_train_batch_size=BATCH, per_device_eval_batch_size=BATCH, use_cpu=True, report_to=[],
        disable_tqdm=True, remove_unused_columns=False, train_sampling_strategy="sequential", **plain,
    )  # fmt: skip
    found = transformers.Trainer(
        model or Regression(),
        arguments,
        train_dataset=rows(),
        eval_dataset=rows(1),
        callbacks=[] if callback is None else [callback],
        compute_metrics=lambda _: {"accuracy": 0.75},
    )
    found.remove_callback(transformers.PrinterCallback)
    return found


def train(seen: Seen, folder: Path, **settings: Any) -> transformers.Trainer:
    found = trainer(NissaCallback(**seen.settings()), folder, **settings)
    found.train()
    return found


def name(of_the_network: str) -> str:
    return f"network.{of_the_network}"


@pytest.mark.parametrize(
    ("settings", "plainly"),
    [
        ({"num_train_epochs": 2}, {"epochs": 2}),
        ({"gradient_accumulation_steps": 2}, {}),
        ({"max_grad_norm": 0.1}, {"clip": 0.1}),
    ],
    ids=["two epochs", "accumulation", "clipping"],
)
def test_each_step_has_the_loss_and_the_gradients_that_the_optimizer_used(
    seen: Seen, tmp_path: Path, settings: dict[str, Any], plainly: dict[str, Any]
) -> None:
    train(seen, tmp_path, **settings)
    truth = train_plainly(**plainly) if plainly else plain_accumulation()
    seen.agrees(truth, name)
    if "clip" in plainly:
        assert [step.clip_norm for step in seen.steps] == pytest.approx(truth.norms)
        assert [step.clip_factor for step in seen.steps] == pytest.approx([0.1 / (n + 1e-6) for n in truth.norms])
    else:
        assert {step.clip_norm for step in seen.steps} == {None}
    assert seen.items("samples") == len(data()) * plainly.get("epochs", 1)
    assert seen.phases == {"data", "forward", "backward", "optimizer"}


def plain_accumulation() -> Any:
    """Train as the trainer does: the last group of an epoch is divided by its own number of batches."""
    truth, model = SimpleNamespace(losses=[], gradients=[]), network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    everything = list(torch.utils.data.DataLoader(data(), batch_size=BATCH))
    for first in range(0, BATCHES, 2):
        group = everything[first : first + 2]
        optimizer.zero_grad()
        loss = torch.stack([mse(model, batch) for batch in group]).mean()
        torch.autograd.backward(loss)
        truth.losses.append(loss.item())
        truth.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        optimizer.step()
    return truth


def test_the_weights_are_those_of_a_training_without_the_callback(seen: Seen, tmp_path: Path) -> None:
    with_callback, without = Regression(), Regression()
    trainer(NissaCallback(**seen.settings()), tmp_path, with_callback, max_grad_norm=0.1).train()
    trainer(None, tmp_path, without, max_grad_norm=0.1).train()
    for one, other in zip(with_callback.parameters(), without.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_losses_are_those_that_the_trainer_logs(seen: Seen, tmp_path: Path) -> None:
    found = train(seen, tmp_path, logging_strategy="steps", logging_steps=1, gradient_accumulation_steps=2)
    found.log({"reward": 2.5})
    logged = [entry["loss"] for entry in found.state.log_history if "loss" in entry]
    assert seen.losses == pytest.approx(logged)
    run = nissa.current_run()
    assert run is not None
    run.close()
    assert seen.scalars("reward") == [2.5]
    assert {name for each in seen.logged for name in each.scalars} == {"reward"}


def test_tokens_that_are_averaged_over_a_step_have_one_loss(seen: Seen, tmp_path: Path) -> None:
    """The trainer passes the number of items of the whole step to a model that accepts it."""

    class Counting(Regression):
        def forward(
            self, x: torch.Tensor, labels: torch.Tensor, num_items_in_batch: Any = None, **_: Any
        ) -> dict[str, torch.Tensor]:
            logits = self.network(x)
            total = nn.functional.mse_loss(logits, labels, reduction="sum")
            return {"loss": total / (num_items_in_batch or labels.numel()), "logits": logits}

    found = trainer(NissaCallback(**seen.settings()), tmp_path, Counting(), gradient_accumulation_steps=2)
    found.train()
    assert seen.losses == pytest.approx(plain_accumulation().losses)


def test_epochs_and_evaluations_are_those_of_the_trainer(seen: Seen, tmp_path: Path) -> None:
    found = train(seen, tmp_path, num_train_epochs=2, eval_strategy="epoch")
    assert seen.epochs == [0, 1]
    assert [each.epoch for each in seen.validations] == [0, 1]
    evaluated = [entry["eval_loss"] for entry in found.state.log_history if "eval_loss" in entry]
    assert [each.loss for each in seen.validations] == pytest.approx(evaluated)
    assert [each.accuracy for each in seen.validations] == [0.75, 0.75]


def test_an_evaluation_after_the_training_belongs_to_its_last_epoch(seen: Seen, tmp_path: Path) -> None:
    found = train(seen, tmp_path)
    metrics = found.evaluate()
    (validation,) = seen.validations
    assert validation.epoch == 0
    assert validation.loss == pytest.approx(metrics["eval_loss"])
    run = nissa.current_run()
    assert run is not None
    run.close()
    assert found.evaluate()
    assert len(seen.validations) == 1


def test_early_stopping_ends_the_epochs_in_order(seen: Seen, tmp_path: Path) -> None:
    callback = NissaCallback(**seen.settings())
    found = trainer(
        callback, tmp_path, num_train_epochs=10, eval_strategy="epoch", save_strategy="epoch", learning_rate=0.0,
        load_best_model_at_end=True, metric_for_best_model="eval_loss", save_total_limit=1,
    )  # fmt: skip
    found.add_callback(transformers.EarlyStoppingCallback(early_stopping_patience=1))
    found.train()
    assert seen.epochs == [0, 1]
    saved = [Path(event.data["path"]).name for event in seen.of_type(EventType.CHECKPOINT_SAVED)]
    assert saved == [f"checkpoint-{BATCHES}", f"checkpoint-{2 * BATCHES}"]


def test_an_exception_passes_through_and_the_next_training_is_a_run_of_its_own(seen: Seen, tmp_path: Path) -> None:
    class Failing(Regression):
        calls = 0

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            self.calls += 1
            if self.calls == 3:
                raise ZeroDivisionError("of the script")
            return super().forward(x, labels)

    found = trainer(NissaCallback(**seen.settings()), tmp_path, Failing())
    with pytest.raises(ZeroDivisionError, match="of the script"):
        found.train()
    run = nissa.current_run()
    assert run is not None
    assert run.flush()  # rows are read every 50 ms
    assert len(seen.steps) == 2
    found.train()
    assert len(seen.steps) == 2 + BATCHES
    assert len(seen.of_type(EventType.TRAINING_STARTED)) == 2
    assert len(seen.of_type(EventType.TRAINING_ENDED)) == 1


def test_the_trainer_is_restored_after_the_training(seen: Seen, tmp_path: Path) -> None:
    found = train(seen, tmp_path)
    assert "training_step" not in vars(found)
    inner = found.optimizer.optimizer
    assert not inner._optimizer_step_pre_hooks
    assert not inner._optimizer_step_post_hooks


def test_without_a_trainer_on_the_stack_the_losses_are_absent_and_a_warning_says_so(
    seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    model = Regression()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    NissaCallback(**seen.settings()).on_train_begin(None, None, None, model=model, optimizer=optimizer)
    model(**{key: torch.stack([row[key] for row in rows()]) for key in ("x", "labels")})["loss"].backward()
    optimizer.step()
    run = nissa.current_run()
    assert run is not None
    assert run.flush()  # the step is read before
    assert seen.losses == [None]
    assert "no transformers.Trainer calls this callback" in caplog.text


@pytest.mark.parametrize("restores", [False, True])
def test_a_training_that_goes_on_from_a_checkpoint_continues_its_run(
    seen: Seen, tmp_path: Path, restores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NISSA_PROFILE", "diagnostic")
    monkeypatch.setenv("NISSA_OVERHEAD_BUDGET", "1.0")
    first = trainer(NissaCallback(**seen.settings()), tmp_path, save_strategy="epoch")
    first.train()
    run = nissa.current_run()
    assert run is not None
    run.close()
    settings: dict[str, Any] = {"num_train_epochs": 2, "restore_callback_states_from_checkpoint": restores}
    callback = NissaCallback(**seen.settings())
    second = trainer(callback, tmp_path, **settings)
    second.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{BATCHES}"))
    resumed = nissa.current_run()
    assert resumed is not None
    resumed.close()
    assert resumed.run_id == run.run_id
    if not restores:  # else the trainer builds another callback, from the arguments that JSON can store
        seen.agrees(train_plainly(epochs=2), name)
        assert seen.epochs == [0, 1]
    second.train()
    last = nissa.current_run()
    assert last is not None
    last.close()
    assert last.run_id != run.run_id


def test_a_training_that_goes_on_within_an_epoch_continues_its_trace(seen: Seen, tmp_path: Path) -> None:
    first = trainer(NissaCallback(**seen.settings()), tmp_path, save_strategy="steps", save_steps=2, max_steps=2)
    first.train()
    run = nissa.current_run()
    assert run is not None
    run.close()
    second = trainer(NissaCallback(**seen.settings()), tmp_path)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    seen.agrees(train_plainly(), name)
    before, after = seen.of_type(EventType.EPOCH_STARTED)
    assert (before.epoch, after.epoch) == (0, 0)
    assert before.data["trace_id"] == after.data["trace_id"]
