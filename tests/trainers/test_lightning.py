"""`nissa.integrations.lightning`: the values of each step are those of the same training in plain PyTorch."""

import logging
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from time import sleep
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn

import nissa
from nissa import EventType, WatchError
from nissa.integrations.lightning import NissaCallback
from tests.trainers.seen import BATCH, BATCHES, Seen, batches, data, mse, network, train_plainly

warnings.filterwarnings("ignore", module="lightning")


class Regression(lightning.LightningModule):
    """The network of the plain training, with validation."""

    def __init__(self, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = network()
        self.optimizer, self.lr = optimizer, lr

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.network(x)
        return found

    def training_step(self, batch: Any, _index: int) -> torch.Tensor:
        return mse(self.network, batch)

    def validation_step(self, batch: Any, _index: int) -> None:
        self.log("val_loss", mse(self.network, batch))
        self.log("val_acc", 0.75)
        self.log("temperature", 2.5)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.network.parameters(), lr=self.lr)  # type: ignore[call-arg]


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def trainer(callback: NissaCallback, *callbacks: Any, **settings: Any) -> lightning.Trainer:
    plain = {"enable_checkpointing": False, "num_sanity_val_steps": 1, "max_epochs": 1, **settings}
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback, *callbacks],
        **plain,
    )


def fit(seen: Seen, module: lightning.LightningModule | None = None, *callbacks: Any, **settings: Any) -> None:
    validation = settings.pop("validation", batches(data(1)))
    trainer(NissaCallback(**seen.settings()), *callbacks, **settings).fit(
        module or Regression(), batches(data()), validation
    )


def name(of_the_network: str) -> str:
    return f"network.{of_the_network}"


@pytest.mark.parametrize(
    ("settings", "plainly"),
    [
        ({"max_epochs": 2}, {"epochs": 2}),
        ({"accumulate_grad_batches": 2}, {"accumulate": 2}),
        ({"gradient_clip_val": 0.1}, {"clip": 0.1}),
        ({"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}, {"accumulate": 2, "clip": 0.1}),
    ],
    ids=["two epochs", "accumulation", "clipping", "both"],
)
def test_each_step_has_the_loss_and_the_gradients_that_the_optimizer_used(
    seen: Seen, settings: dict[str, Any], plainly: dict[str, Any]
) -> None:
    fit(seen, **settings)
    truth = train_plainly(**plainly)
    seen.agrees(truth, name)
    assert [step.learning_rate for step in seen.steps] == [0.1] * len(truth.losses)
    clipped = [step.clip_norm for step in seen.steps]
    assert clipped == (pytest.approx(truth.norms) if "clip" in plainly else [None] * len(truth.losses))


def test_the_weights_are_those_of_a_training_without_the_callback(seen: Seen) -> None:
    with_callback, without = Regression(), Regression()
    fit(seen, with_callback, gradient_clip_val=0.1, accumulate_grad_batches=2)
    plain = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=1,
        enable_checkpointing=False, gradient_clip_val=0.1, accumulate_grad_batches=2,
    )  # fmt: skip
    plain.fit(without, batches(data()), batches(data(1)))
    for one, other in zip(with_callback.parameters(), without.parameters(), strict=True):
        assert torch.equal(one, other)


class Scaled(lightning.pytorch.plugins.MixedPrecision):
    """Half precision with its scaler; the network stays double, so that the values are exact."""

    def __init__(self, scale: float, *, overflows: bool = False) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1))
        self.overflows = overflows

    def forward_context(self) -> Any:
        return torch.autocast("cpu", enabled=False)

    def post_backward(self, tensor: torch.Tensor, module: Any) -> torch.Tensor:
        if self.overflows:
            next(module.parameters()).grad.fill_(torch.inf)
            self.overflows = False
        return super().post_backward(tensor, module)


def test_the_loss_scale_of_half_precision_is_removed_from_loss_and_gradients(seen: Seen) -> None:
    fit(seen, plugins=[Scaled(2.0**12)], gradient_clip_val=0.1)
    truth = train_plainly(clip=0.1)
    seen.agrees(truth, name, rel=1e-6)
    assert [step.clip_norm for step in seen.steps] == pytest.approx(truth.norms)


def test_a_step_that_the_scaler_skips_is_counted_and_has_no_loss(seen: Seen) -> None:
    fit(seen, plugins=[Scaled(2.0**12, overflows=True)])
    assert (seen.skipped, len(seen.steps)) == (1, BATCHES - 1)
    assert [step.step for step in seen.steps] == list(range(BATCHES - 1))
    model = network()
    everything = list(batches(data()))
    assert seen.losses[0] == pytest.approx(mse(model, everything[1]).item())


class Adversarial(lightning.LightningModule):
    """Two optimizers, stepped by hand: the second network has two backward passes per step."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = network(), network()
        self.losses: list[tuple[float, float]] = []

    def training_step(self, batch: Any, _index: int) -> None:
        generator, critic = self.optimizers()
        generator.zero_grad()
        critic.zero_grad()
        loss = mse(self.generator, batch)
        self.manual_backward(loss)
        generator.step()
        both = mse(self.critic, batch), 3 * mse(self.critic, batch)
        for each in both:
            self.manual_backward(each)
        critic.step()
        self.losses.append((loss.item(), sum(each.item() for each in both)))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD(each.parameters(), lr=0.1) for each in (self.generator, self.critic)]


def test_several_optimizers_are_named_after_what_they_train_and_have_their_own_losses(seen: Seen) -> None:
    module = Adversarial()
    fit(seen, module, validation=None)
    by_model = {
        model: [step.loss for step in seen.steps if step.model_name == model] for model in ("generator", "critic")
    }
    assert by_model["generator"] == pytest.approx([loss for loss, _ in module.losses])
    # Which part of a sum of two backward passes is the loss cannot be known.
    assert by_model["critic"] == [None] * BATCHES
    values = [step.backward_value for step in seen.steps if step.model_name == "critic"]
    assert values == pytest.approx([both for _, both in module.losses])
    assert {name.partition(".")[0] for sample in seen.samples for name in sample.names} == {"generator", "critic"}


def test_an_optimizer_with_a_closure_has_the_loss_of_its_starting_point(seen: Seen) -> None:
    fit(seen, Regression(torch.optim.LBFGS))
    assert len(seen.steps) == BATCHES
    assert seen.losses[0] == pytest.approx(train_plainly().losses[0])
    assert len({step.loss for step in seen.steps}) == BATCHES


def test_epochs_and_validations_are_those_of_the_trainer(seen: Seen) -> None:
    module = Regression()
    fit(seen, module, max_epochs=2)
    assert seen.epochs == [0, 1]
    assert [each.epoch for each in seen.validations] == [0, 1]  # not that of the sanity check
    loss = sum(mse(module.network, batch).item() for batch in batches(data(1))) / BATCHES
    assert seen.validations[-1].loss == pytest.approx(loss)
    assert [each.accuracy for each in seen.validations] == [0.75, 0.75]
    assert seen.scalars("temperature") == [2.5, 2.5]
    assert seen.scalars("val_acc") == []
    assert seen.items("samples") == 2 * BATCHES * BATCH
    plain = train_plainly(epochs=2)
    assert [each.train_loss for each in seen.validations] == pytest.approx(
        [sum(plain.losses[:BATCHES]) / BATCHES, sum(plain.losses[BATCHES:]) / BATCHES]
    )


def test_metrics_with_names_of_their_own_are_chosen(seen: Seen) -> None:
    class Named(Regression):
        def validation_step(self, batch: Any, _index: int) -> None:
            self.log("holdout", mse(self.network, batch))

    callback = NissaCallback(validation_loss="holdout", **seen.settings())
    trainer(callback).fit(Named(), batches(data()), batches(data(1)))
    (validation,) = seen.validations
    assert validation.loss is not None
    assert validation.accuracy is None


def test_early_stopping_ends_the_run_in_order(seen: Seen) -> None:
    fit(seen, Regression(lr=0.0), EarlyStopping("val_loss", patience=1), max_epochs=10)
    assert seen.epochs == [0, 1]
    (ended,) = seen.of_type(EventType.TRAINING_ENDED)
    assert ended.data.get("error") is None
    assert nissa.current_run() is None
    (started,) = seen.of_type(EventType.TRAINING_STARTED)
    assert started.data["run_config"] == {"lr": 0.0}


class Failing(Regression):
    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        if index == 3:
            raise ZeroDivisionError("of the script")
        return super().training_step(batch, index)


def test_the_phases_of_a_step_are_those_of_the_trainer(seen: Seen) -> None:
    class Slow(Regression):
        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            sleep(0.05)  # within the closure of the optimizer's step
            return super().training_step(batch, index)

    fit(seen, Slow())
    for step in seen.steps[1:]:
        assert list(step.phases) == ["data", "forward", "backward", "optimizer"]
        assert step.phases["forward"] >= 0.05
        assert step.phases["optimizer"] < step.phases["forward"]


def test_an_exception_passes_through_and_is_the_reason_of_the_end(seen: Seen) -> None:
    with pytest.raises(ZeroDivisionError, match="of the script"):
        fit(seen, Failing())
    (ended,) = seen.of_type(EventType.TRAINING_ENDED)
    assert ended.data["error"] == "ZeroDivisionError"
    assert len(seen.steps) == 3
    assert nissa.current_run() is None


def test_the_trainer_is_restored_at_the_end(seen: Seen) -> None:
    callback = NissaCallback(**seen.settings())
    used = trainer(callback, gradient_clip_val=0.1)
    optimizers = []
    for _ in range(2):  # a second fit is a run of its own
        used.fit_loop.epoch_progress.reset()
        used.fit(Regression(), batches(data()), batches(data(1)))
        optimizers += used.optimizers
        assert "save_checkpoint" not in vars(used)
        assert "clip_grad_by_norm" not in vars(used.precision_plugin)
        assert callback.run is None
    assert len(seen.of_type(EventType.TRAINING_ENDED)) == 2
    assert not any(each._optimizer_step_pre_hooks or each._optimizer_step_post_hooks for each in optimizers)


def test_a_run_that_is_active_is_joined_and_stays_open(seen: Seen) -> None:
    with nissa.start(**seen.settings()) as run:
        trainer(NissaCallback(), max_epochs=1).fit(Regression(), batches(data()), batches(data(1)))
        assert nissa.current_run() is run
        assert run.validate(loss=1.0).epoch == 0
    assert len(seen.steps) == BATCHES
    assert len(seen.of_type(EventType.TRAINING_STARTED)) == 1


def test_checkpoints_are_spans_of_the_run(seen: Seen, tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(seen, Regression(), checkpoint, max_epochs=2, enable_checkpointing=True)
    saved = [Path(event.data["path"]).name for event in seen.of_type(EventType.CHECKPOINT_SAVED)]
    assert saved == ["epoch=0.ckpt", "epoch=1.ckpt"]
    assert all((tmp_path / each).exists() for each in saved)


def test_a_model_that_cannot_be_watched_is_refused_before_the_first_step(seen: Seen) -> None:
    class Elsewhere(Regression):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)

    with pytest.raises(WatchError, match="none of the parameters"):
        fit(seen, Elsewhere())
    assert nissa.current_run() is None


def test_a_copied_callback_has_the_settings_and_no_run(seen: Seen) -> None:
    callback = NissaCallback("minimal", service_name="copied", validation_loss="holdout")
    copied = deepcopy(callback)
    assert copied._trainer_run.settings == {"profile": "minimal", "service_name": "copied"}
    assert copied._names == callback._names
    assert seen.steps == []


def test_a_training_that_goes_on_from_a_checkpoint_continues_its_run(seen: Seen, tmp_path: Path) -> None:
    runs = []
    for epochs, checkpoint in ((1, None), (2, tmp_path / "last.ckpt")):
        callback = NissaCallback(**seen.settings())
        used = trainer(
            callback, ModelCheckpoint(tmp_path, save_last=True), max_epochs=epochs, enable_checkpointing=True
        )
        used.fit(Regression(), batches(data()), batches(data(1)), ckpt_path=checkpoint, weights_only=False)
        runs.append(seen.of_type(EventType.TRAINING_STARTED)[-1].data["run_id"])
    assert runs[0] == runs[1]
    seen.agrees(train_plainly(epochs=2), name)
    assert seen.epochs == [0, 1]
