"""Trainings with nothing wrong: different networks, optimizers and habits, each of which really learns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.optim import SGD, Adagrad, Adam, AdamW, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, StepLR

from nissa.hub.measurements import StepMeasured
from tests.pathologies import data, networks
from tests.pathologies.running import Outcome, Training


@dataclass(frozen=True)
class Recipe:
    """A healthy training.

    Args:
        accuracy: What it reaches at least, as a fraction; None where there are no classes.
        ratio: The most that its last validation loss is of what the first example of guessing would cost.
    """

    name: str
    make: Callable[[], Training]
    accuracy: float | None = 0.9
    ratio: float | None = None

    def learned(self, outcome: Outcome) -> bool:
        """Whether the training learned what it should."""
        if self.ratio is not None:
            return outcome.losses[-1] <= self.ratio * _first(outcome)
        return bool(self.accuracy is not None and outcome.accuracies[-1] >= self.accuracy)


def _first(outcome: Outcome) -> float:
    """Return the loss of the first step."""
    losses: list[float] = [
        each.loss for each in outcome.readings if isinstance(each, StepMeasured) and each.loss is not None
    ]
    return losses[0]


RECIPES: Final[list[Recipe]] = []


def _recipe(accuracy: float | None = 0.9, ratio: float | None = None) -> Callable[[Callable[[], Training]], None]:
    def add(make: Callable[[], Training]) -> None:
        RECIPES.append(Recipe(make.__name__, make, accuracy, ratio))

    return add


def _warm(optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / steps))


@_recipe()
def mlp_sgd() -> Training:
    network = networks.mlp(64, 64, 10)
    return Training(network=network, optimizer=SGD(network.parameters(), 0.1), data=data.digits())


@_recipe()
def mlp_momentum() -> Training:
    network = networks.mlp(64, 64, 64, 10)
    return Training(network=network, optimizer=SGD(network.parameters(), 0.02, 0.9), data=data.digits())


@_recipe()
def mlp_nesterov_cosine() -> Training:
    network = networks.mlp(64, 96, 48, 10)
    optimizer = SGD(network.parameters(), 0.05, 0.9, nesterov=True, weight_decay=1e-4)
    schedule = CosineAnnealingLR(optimizer, 12 * 23)
    return Training(network=network, optimizer=optimizer, data=data.digits(), schedule=schedule)


@_recipe()
def mlp_adam() -> Training:
    network = networks.mlp(64, 64, 10)
    return Training(network=network, optimizer=Adam(network.parameters(), 3e-3), data=data.digits(), probed=True)


@_recipe()
def mlp_one_cycle() -> Training:
    network = networks.mlp(64, 64, 64, 10, activation=nn.GELU)
    optimizer = AdamW(network.parameters(), 1e-3)
    schedule = OneCycleLR(optimizer, 1e-2, 12 * 23)
    return Training(network=network, optimizer=optimizer, data=data.digits(), schedule=schedule)


@_recipe()
def mlp_rmsprop() -> Training:
    network = networks.mlp(64, 64, 10)
    return Training(network=network, optimizer=RMSprop(network.parameters(), 1e-3), data=data.digits())


@_recipe()
def mlp_adagrad() -> Training:
    network = networks.mlp(64, 64, 10, activation=nn.Tanh)
    return Training(network=network, optimizer=Adagrad(network.parameters(), 2e-2), data=data.digits())


@_recipe()
def tanh_sgd_step_schedule() -> Training:
    network = networks.mlp(64, 64, 64, 10, activation=nn.Tanh)
    optimizer = SGD(network.parameters(), 0.1, 0.9)
    schedule = StepLR(optimizer, 4 * 23, 0.3)
    return Training(network=network, optimizer=optimizer, data=data.digits(), schedule=schedule)


@_recipe()
def gelu_layer_norm() -> Training:
    network = networks.mlp(64, 64, 64, 10, activation=nn.GELU, norm=True)
    return Training(network=network, optimizer=AdamW(network.parameters(), 2e-3), data=data.digits(), probed=True)


@_recipe()
def mlp_dropout() -> Training:
    network = networks.mlp(64, 128, 128, 10, dropout=0.4)
    return Training(network=network, optimizer=Adam(network.parameters(), 2e-3), data=data.digits(), epochs=15)


@_recipe()
def deep_residual() -> Training:
    network = networks.residual(48, 10)
    optimizer = AdamW(network.parameters(), 2e-3)
    return Training(network=network, optimizer=optimizer, data=data.digits(), schedule=_warm(optimizer, 20), epochs=10)


@_recipe()
def deep_batch_norm() -> Training:
    network = networks.batch_normed(48, 8)
    return Training(network=network, optimizer=SGD(network.parameters(), 0.05, 0.9), data=data.digits(), epochs=15)


@_recipe()
def cnn_batch_norm_sgd() -> Training:
    network = networks.cnn()
    optimizer = SGD(network.parameters(), 0.05, 0.9, weight_decay=5e-4)
    return Training(network=network, optimizer=optimizer, data=data.images(), epochs=10, probed=True)


@_recipe()
def cnn_batch_norm_adam() -> Training:
    network = networks.cnn()
    return Training(network=network, optimizer=Adam(network.parameters(), 3e-3), data=data.images(), epochs=10)


@_recipe()
def cnn_group_norm() -> Training:
    network = networks.cnn(lambda width: nn.GroupNorm(4, width))
    return Training(network=network, optimizer=AdamW(network.parameters(), 5e-3), data=data.images(), epochs=12)


@_recipe()
def cnn_bf16() -> Training:
    network = networks.cnn()
    optimizer = SGD(network.parameters(), 0.05, 0.9)
    return Training(network=network, optimizer=optimizer, data=data.images(), epochs=6, bf16=True)


@_recipe()
def cnn_augmented() -> Training:
    network = networks.cnn()
    optimizer = Adam(network.parameters(), 5e-3)
    schedule = StepLR(optimizer, 5 * 23, 0.2)
    return Training(
        network=network,
        optimizer=optimizer,
        data=data.images(),
        epochs=10,
        schedule=schedule,
        augment=lambda x: x + 0.3 * torch.randn_like(x),
    )


@_recipe()
def gru_rows() -> Training:
    network = networks.Recurrent(nn.GRU(8, 48, batch_first=True), 10)
    return Training(network=network, optimizer=Adam(network.parameters(), 5e-3), data=data.rows(), clip=1.0)


@_recipe()
def lstm_rows() -> Training:
    network = networks.Recurrent(nn.LSTM(8, 48, batch_first=True), 10)
    optimizer = Adam(network.parameters(), 5e-3)
    return Training(network=network, optimizer=optimizer, data=data.rows(), clip=1.0, epochs=14)


@_recipe(ratio=0.3)
def gru_sums() -> Training:
    network = networks.Recurrent(nn.GRU(2, 32, batch_first=True), 1)
    optimizer = Adam(network.parameters(), 1e-2)
    return Training(network=network, optimizer=optimizer, data=data.sums(), loss=f.mse_loss, clip=1.0)


@_recipe(accuracy=0.85)
def rnn_clipped() -> Training:
    network = networks.Recurrent(nn.RNN(8, 64, batch_first=True), 10)
    return Training(
        network=network, optimizer=SGD(network.parameters(), 0.05, 0.9), data=data.rows(), clip=1.0, epochs=18
    )


@_recipe()
def transformer_rows() -> Training:
    network = networks.Encoder()
    optimizer = AdamW(network.parameters(), 3e-3)
    return Training(network=network, optimizer=optimizer, data=data.rows(), schedule=_warm(optimizer, 40), epochs=12)


@_recipe(accuracy=0.85)
def transformer_post_norm() -> Training:
    network = networks.Encoder(first=False)
    optimizer = AdamW(network.parameters(), 2e-3)
    schedule = OneCycleLR(optimizer, 3e-3, 12 * 23)
    return Training(network=network, optimizer=optimizer, data=data.rows(), schedule=schedule, epochs=12)


@_recipe(accuracy=0.7)
def gpt_tied() -> Training:
    network = networks.Gpt()
    optimizer = AdamW(network.parameters(), 3e-3)
    return Training(
        network=network,
        optimizer=optimizer,
        data=data.text(),
        schedule=_warm(optimizer, 30),
        clip=1.0,
        epochs=10,
        batch=50,
    )


@_recipe(accuracy=0.7)
def gpt_warm_cosine() -> Training:
    network = networks.Gpt(tied=False)
    optimizer = AdamW(network.parameters(), 4e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = OneCycleLR(optimizer, 4e-3, 10 * 16, pct_start=0.2)
    return Training(
        network=network, optimizer=optimizer, data=data.text(), schedule=schedule, clip=1.0, epochs=10, batch=50
    )


@_recipe(accuracy=0.85)
def embedding_bag() -> Training:
    network = nn.Sequential(nn.EmbeddingBag(data.WORDS, 16, mode="mean"), nn.Linear(16, 4))
    return Training(network=network, optimizer=Adam(network.parameters(), 2e-2), data=data.bags(), epochs=12)


@_recipe(accuracy=0.85)
def sparse_embedding() -> Training:
    bag = nn.EmbeddingBag(data.WORDS, 16, mode="mean", sparse=True)
    network = nn.Sequential(bag, nn.Linear(16, 4))
    return Training(network=network, optimizer=SGD(network.parameters(), 1.0), data=data.bags(), epochs=14)


@_recipe(ratio=0.4)
def autoencoder() -> Training:
    network = networks.mlp(64, 64, 16, 64, 64)
    optimizer = Adam(network.parameters(), 3e-3)
    return Training(network=network, optimizer=optimizer, data=data.themselves(), loss=f.mse_loss)


def _evidence(output: Tensor, x: Tensor) -> Tensor:
    image, mean, spread = output[:, :64], output[:, 64:72], output[:, 72:]
    divergence = (mean.square() + spread.exp() - 1 - spread).sum(1) / 2
    return ((image - x).square().sum(1) + 0.5 * divergence).mean()


@_recipe(ratio=0.7)
def variational_autoencoder() -> Training:
    network = networks.Variational()
    optimizer = Adam(network.parameters(), 3e-3)
    return Training(network=network, optimizer=optimizer, data=data.themselves(), loss=_evidence)


@_recipe(ratio=0.2)
def regression() -> Training:
    network = networks.mlp(4, 64, 64, 1, activation=nn.SiLU)
    optimizer = Adam(network.parameters(), 5e-3)
    return Training(network=network, optimizer=optimizer, data=data.curve(), loss=f.mse_loss, epochs=15, probed=True)


@_recipe(ratio=0.3)
def regression_huber_large_targets() -> Training:
    network = networks.mlp(4, 64, 64, 1)
    optimizer = Adam(network.parameters(), 2e-2)
    return Training(network=network, optimizer=optimizer, data=data.curve(scale=20.0), loss=f.smooth_l1_loss, epochs=18)


@_recipe(ratio=0.1)
def linear_regression() -> Training:
    network = nn.Linear(16, 1)
    return Training(
        network=network, optimizer=SGD(network.parameters(), 0.05), data=data.line(), loss=f.mse_loss, epochs=8
    )


@_recipe()
def logistic_regression() -> Training:
    network = nn.Linear(64, 10)
    return Training(
        network=network, optimizer=SGD(network.parameters(), 0.1), data=data.digits(), epochs=12, probed=True
    )


@_recipe()
def frozen_backbone() -> Training:
    network = networks.mlp(64, 256, 64, 10)
    network[0].requires_grad_(requires_grad=False)
    trained = [each for each in network.parameters() if each.requires_grad]
    return Training(network=network, optimizer=Adam(trained, 3e-3), data=data.digits())


@_recipe()
def gradual_unfreezing() -> Training:
    network = networks.mlp(64, 128, 64, 10)
    network[0].requires_grad_(requires_grad=False)

    def thaw(step: int) -> None:
        if step == 5 * 23:
            network[0].requires_grad_(requires_grad=True)

    return Training(network=network, optimizer=Adam(network.parameters(), 2e-3), data=data.digits(), forward=thaw)


@_recipe()
def accumulation() -> Training:
    network = networks.mlp(64, 64, 10)
    return Training(
        network=network, optimizer=SGD(network.parameters(), 0.1, 0.9), data=data.digits(), batch=16, accumulate=4
    )


@_recipe()
def label_smoothing() -> Training:
    network = networks.mlp(64, 96, 10)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    return Training(network=network, optimizer=Adam(network.parameters(), 3e-3), data=data.digits(), loss=loss)


@_recipe(ratio=0.4)
def two_classes() -> Training:
    network = networks.mlp(64, 48, 1)
    loss = f.binary_cross_entropy_with_logits
    return Training(network=network, optimizer=Adam(network.parameters(), 3e-3), data=data.halves(), loss=loss)


@_recipe(ratio=0.5)
def several_labels() -> Training:
    network = networks.mlp(64, 64, 4, activation=nn.Tanh)
    loss = f.binary_cross_entropy_with_logits
    return Training(network=network, optimizer=SGD(network.parameters(), 0.2, 0.9), data=data.properties(), loss=loss)


@_recipe()
def small_batches() -> Training:
    network = networks.mlp(64, 48, 10)
    return Training(network=network, optimizer=SGD(network.parameters(), 0.02), data=data.digits(), batch=8, epochs=5)


@_recipe()
def whole_batches() -> Training:
    network = networks.mlp(64, 64, 10)
    optimizer = SGD(network.parameters(), 0.1, 0.9)
    return Training(network=network, optimizer=optimizer, data=data.digits(), batch=360, epochs=40, probed=True)


@_recipe()
def long_converged() -> Training:
    network = networks.mlp(64, 64, 10, dropout=0.2)
    optimizer = AdamW(network.parameters(), 3e-3, weight_decay=0.05)
    schedule = CosineAnnealingLR(optimizer, 40 * 12)
    return Training(network=network, optimizer=optimizer, data=data.digits(), batch=128, epochs=40, schedule=schedule)


@_recipe()
def spirals() -> Training:
    network = networks.mlp(2, 64, 64, 3)
    optimizer = Adam(network.parameters(), 1e-2)
    return Training(network=network, optimizer=optimizer, data=data.spirals(), epochs=15)


@_recipe(ratio=0.4)
def tiny_loss_scale() -> Training:
    network = networks.mlp(64, 64, 10)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return 1e-3 * f.cross_entropy(output, y)

    return Training(network=network, optimizer=Adam(network.parameters(), 3e-3), data=data.digits(), loss=loss)


def _summed_evidence(output: Tensor, x: Tensor) -> Tensor:
    image, mean, spread = output[:, :64], output[:, 64:72], output[:, 72:]
    return 12 * (image - x).square().sum() + (mean.square() + spread.exp() - 1 - spread).sum() / 2


@_recipe(ratio=2.0)
def summed_variational_autoencoder() -> Training:
    # The loss is a sum over batch and pixels, so that gradients are large and those of a validation larger still.
    network = networks.Variational()
    optimizer = Adam(network.parameters(), 1e-3)
    return Training(network=network, optimizer=optimizer, data=data.themselves(), loss=_summed_evidence)


@_recipe(ratio=0.3)
def regression_targets_in_millions() -> Training:
    network = networks.mlp(4, 64, 64, 1, activation=nn.SiLU)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return f.mse_loss(output * 1e6, y)

    return Training(network=network, optimizer=Adam(network.parameters(), 5e-3), data=data.curve(scale=1e6), loss=loss)
