"""Trainings with one thing wrong on purpose.

Each says which flags are the finding, any one of which counts, and which others are honest consequences of what is
wrong; every other flag is a false alarm, and so is any flag before the wrong begins.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR

from tests.pathologies import data, networks
from tests.pathologies.running import Training

STEPS: Final = 23
"""Of an epoch of digits, 64 at a time."""

MIDDLE: Final = 5 * STEPS + 10
"""A step in the sixth of twelve epochs."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Something that goes wrong.

    Args:
        found: Flags of which any one is the finding; the first names the rule that this kind is for.
        along: Flags that may come along.
        begins: Step from which it is wrong.
    """

    name: str
    make: Callable[[], Training]
    found: tuple[str, ...]
    along: tuple[str, ...] = field(default=())
    begins: int = 0

    @property
    def rule(self) -> str:
        """The rule that it is for."""
        return self.found[0]


KINDS: Final[list[Kind]] = []


def _kind(
    *found: str, along: tuple[str, ...] = (), begins: int = 0
) -> Callable[[Callable[[], Training]], Callable[[], Training]]:
    def add(make: Callable[[], Training]) -> Callable[[], Training]:
        KINDS.append(Kind(name=make.__name__, make=make, found=found, along=along, begins=begins))
        return make

    return add


def _plain(rate: float = 0.05, *widths: int) -> Training:
    """A healthy training, to be spoilt."""
    network = networks.mlp(64, *(widths or (64, 64)), 10)
    return Training(network=network, optimizer=SGD(network.parameters(), rate, 0.9), data=data.digits())


def _at(step: int, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Change the batch of one step."""
    return lambda now, x, y: change(x, y) if now == step else (x, y)


# Gradients that vanish.


@_kind(
    "vanishing_gradients", along=("sustained_plateau", "poor_gradient_health", "stalled_layer", "learning_rate_too_low")
)
def deep_sigmoid() -> Training:
    network = networks.mlp(64, *[48] * 10, 10, activation=nn.Sigmoid)
    return Training(network=network, optimizer=SGD(network.parameters(), 0.05, 0.9), data=data.digits())


@_kind(
    "vanishing_gradients", along=("sustained_plateau", "poor_gradient_health", "stalled_layer", "learning_rate_too_low")
)
def tiny_weights() -> Training:
    network = networks.scaled(networks.mlp(64, *[48] * 6, 10, activation=nn.Tanh), 0.05)
    return Training(network=network, optimizer=SGD(network.parameters(), 0.05, 0.9), data=data.digits())


@_kind(
    "vanishing_gradients",
    along=(
        "loss_spike",
        "gradient_spike",
        "divergence",
        "sustained_plateau",
        "stalled_layer",
        "severe_class_imbalance",
    ),
    begins=MIDDLE,
)
def saturated() -> Training:
    # The units of a layer are driven far into saturation, through which hardly a gradient comes.
    network = networks.mlp(64, 64, 64, 64, 10, activation=nn.Tanh)
    training = Training(network=network, optimizer=SGD(network.parameters(), 0.01, 0.9), data=data.digits())

    def saturate(step: int) -> None:
        if step == MIDDLE:
            with torch.no_grad():
                networks.linears(network)[2].bias.sign_().mul_(7)

    return replace(training, forward=saturate)


# Gradients that explode.


_BLOWN = ("poor_gradient_health", "divergence", "learning_rate_too_high", "loss_spike", "gradient_spike")


@_kind("exploding_gradients", along=_BLOWN)
def standard_normal_weights() -> Training:
    network = networks.mlp(64, *[64] * 6, 10)
    for layer in networks.linears(network):
        nn.init.normal_(layer.weight)
    return Training(network=network, optimizer=Adam(network.parameters(), 1e-4), data=data.digits())


@_kind("exploding_gradients", along=(*_BLOWN, "dead_units", "sharp_minimum"), begins=MIDDLE)
def weights_blown_up() -> Training:
    # A checkpoint that was added up instead of averaged.
    network = networks.mlp(64, *[64] * 4, 10)
    training = Training(network=network, optimizer=Adam(network.parameters(), 1e-3), data=data.digits())

    def blow(step: int) -> None:
        if step == MIDDLE:
            networks.scaled(network, 8)

    return replace(training, forward=blow)


class _Growing(nn.Module):
    """A recurrence whose state grows, with units that do not saturate."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again, self.leave = nn.Linear(2, 32), nn.Linear(32, 32, bias=False), nn.Linear(32, 1)
        with torch.no_grad():
            nn.init.orthogonal_(self.again.weight).mul_(2.2)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 32)
        for step in range(x.shape[1]):
            state = (self.enter(x[:, step]) + self.again(state)).relu()
        result: Tensor = self.leave(state)
        return result


@_kind(
    "exploding_gradients", along=(*_BLOWN, "nonfinite_loss", "nonfinite_gradients", "dead_units", "sustained_plateau")
)
def unclipped_recurrence() -> Training:
    network = _Growing()
    optimizer = Adam(network.parameters(), 1e-4)
    return Training(network=network, optimizer=optimizer, data=data.sums(32, 1000), loss=f.mse_loss, epochs=6)


@_kind(
    "poor_gradient_health",
    "unscaled_inputs",
    along=(*_BLOWN, "exploding_gradients", "learning_rate_too_low", "sustained_plateau"),
)
def unscaled_targets() -> Training:
    # Prices in cents: neither inputs nor targets are standardised.
    network = networks.mlp(4, 64, 64, 1)
    made = data.curve(scale=1e6)
    made = replace(made, x=made.x * 100, x_val=made.x_val * 100)
    return Training(network=network, optimizer=Adam(network.parameters(), 1e-3), data=made, loss=f.mse_loss)


# Units that die.


_DEAD = (
    "vanishing_gradients",
    "sustained_plateau",
    "stalled_layer",
    "poor_gradient_health",
    "loss_spike",
    "gradient_spike",
)


@_kind("dead_units", along=_DEAD)
def large_negative_bias() -> Training:
    training = _plain()
    with torch.no_grad():
        networks.linears(training.network)[1].bias.sub_(20)
    return training


@_kind("dead_units", along=(*_DEAD, "divergence"), begins=MIDDLE)  # the loss rises to that of a guess
def bias_pushed_down() -> Training:
    training = _plain(0.02, 64, 64, 64)

    def push(step: int) -> None:
        if step == MIDDLE:
            with torch.no_grad():
                networks.linears(training.network)[1].bias[:60].sub_(30)

    return replace(training, forward=push)


@_kind(
    "dead_units",
    along=(*_DEAD, "divergence", "exploding_gradients", "learning_rate_too_high", "severe_class_imbalance"),
    begins=MIDDLE,
)
def one_huge_step() -> Training:
    training = _plain(0.05, 64, 64)
    optimizer = training.optimizer

    def slip(step: int) -> None:
        optimizer.param_groups[0]["lr"] = 30.0 if step == MIDDLE else 0.05

    return replace(training, before=slip)


# What is no number.


_NAN = ("nonfinite_loss", "nonfinite_gradients", "poor_gradient_health")


@_kind("nonfinite_gradients", along=_NAN, begins=MIDDLE)
def root_of_zero() -> Training:
    # The gradient of a distance is 0/0 where the two points are the same; the loss of that step is fine.
    training = _plain()

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return f.cross_entropy(output, y) + 0.01 * (output[0] - output[1]).square().sum().sqrt()

    def double(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.index_copy(0, torch.tensor([1]), x[:1]), y

    return replace(training, loss=loss, meddle=_at(MIDDLE, double))


@_kind("nonfinite_gradients", along=(*_NAN, "exploding_gradients", "gradient_spike"), begins=MIDDLE)
def overflowing_scale() -> Training:
    # A hand-made loss scale that doubles until half precision overflows, and nobody who checks.
    training = _plain()

    def scale(step: int) -> None:
        factor = 2.0 ** (6 * max(0, step - MIDDLE + 1))
        for parameter in training.network.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_((parameter.grad * factor).half().float() / factor)

    return replace(training, before=scale)


@_kind("nonfinite_loss", along=_NAN, begins=MIDDLE)
def missing_value() -> Training:
    training = _plain()

    def spoil(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone()
        x[3, 5] = float("nan")
        return x, y

    return replace(training, meddle=_at(MIDDLE, spoil))


@_kind("nonfinite_loss", along=(*_NAN, "exploding_gradients", "gradient_spike"), begins=MIDDLE)
def logarithm_of_zero() -> Training:
    # A softmax written by hand, and an example so certain that the right class gets a probability of 0.
    training = _plain()

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return -output.softmax(1).log().gather(1, y.unsqueeze(1)).mean()

    def sure(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat((x[:1] * 100, x[1:])), torch.cat(((y[:1] + 1) % 10, y[1:]))

    return replace(training, loss=loss, meddle=_at(MIDDLE, sure))


# Spikes.


@_kind("loss_spike", along=("gradient_spike", "exploding_gradients", "learning_rate_too_low"), begins=MIDDLE)
def batch_out_of_range() -> Training:
    # Pixels from 0 to 255 among pixels from -1 to 1.
    training = _plain(0.002)
    return replace(training, meddle=_at(MIDDLE, lambda x, y: ((x + 1) * 127, y)))


@_kind("loss_spike", along=("gradient_spike",), begins=MIDDLE)
def batch_with_wrong_labels() -> Training:
    training = _plain()
    return replace(training, meddle=_at(MIDDLE, lambda x, y: (x, (y + 1) % 10)))


@_kind("gradient_spike", along=("loss_spike", "exploding_gradients"), begins=MIDDLE)
def one_outlier() -> Training:
    network = networks.mlp(64, 64, 1)
    optimizer = SGD(network.parameters(), 0.01)
    training = Training(network=network, optimizer=optimizer, data=data.halves(), loss=f.mse_loss)
    return replace(training, meddle=_at(MIDDLE, lambda x, y: (x, torch.cat((y[:1] + 50, y[1:])))))


@_kind(
    "gradient_spike", along=("loss_spike", "exploding_gradients", "divergence", "learning_rate_too_high"), begins=MIDDLE
)
def gradients_added_up() -> Training:
    # One step that gets the sum of forty gradients instead of their mean.
    training = _plain(0.01)

    def add(step: int) -> None:
        if step == MIDDLE:
            for parameter in training.network.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(40)

    return replace(training, before=add)


# Nothing is learned.


@_kind("sustained_plateau", along=("overfitting",))
def random_labels() -> Training:
    network = networks.mlp(64, 32, 10)
    optimizer = SGD(network.parameters(), 0.02, 0.9, weight_decay=0.05)
    return Training(network=network, optimizer=optimizer, data=data.noisy(data.digits(), 1.0))


@_kind(
    "sustained_plateau",
    along=(
        "vanishing_gradients",
        "stalled_layer",
        "dead_units",
        "loss_spike",
        "gradient_spike",
        "learning_rate_too_high",
        "exploding_gradients",
        "divergence",
    ),
)
def dropped_out() -> Training:
    network = networks.mlp(64, 64, 64, 10, dropout=0.995)
    return Training(network=network, optimizer=SGD(network.parameters(), 0.05), data=data.digits())


@_kind("learning_rate_too_low", along=("sustained_plateau",))
def creeping_sgd() -> Training:
    training = _plain()
    return replace(training, optimizer=SGD(training.network.parameters(), 1e-6))


@_kind("learning_rate_too_low", along=("sustained_plateau",))
def creeping_adam() -> Training:
    training = _plain()
    return replace(training, optimizer=Adam(training.network.parameters(), 1e-7))


@_kind("learning_rate_too_low", "learning_rate_zero", "sustained_plateau", "stalled_layer", begins=STEPS)
def schedule_too_short() -> Training:
    # The rate is gone long before anything is learned.
    training = _plain(0.005)
    schedule = LambdaLR(training.optimizer, lambda step: 0.0 if step >= STEPS else 1.0)
    return replace(training, schedule=schedule)


# It learns the wrong thing.


@_kind("overfitting", along=("sustained_plateau", "severe_class_imbalance"))
def few_examples() -> Training:
    network = networks.mlp(64, 256, 256, 10)
    made = data.noisy(data.digits().first(100), 0.2)
    return Training(network=network, optimizer=Adam(network.parameters(), 3e-3), data=made, batch=20, epochs=40)


@_kind(
    "overfitting",
    along=(
        "sustained_plateau",
        "severe_class_imbalance",
    ),
)
def noise_by_heart() -> Training:
    network = networks.mlp(64, 256, 256, 10)
    made = data.mislabelled(0.4)
    return Training(network=network, optimizer=Adam(network.parameters(), 3e-3), data=made, epochs=25)


@_kind("severe_class_imbalance", along=("overfitting", "sustained_plateau"))
def rare_classes() -> Training:
    training = _plain(0.01)
    return replace(training, data=data.rare(data.digits(), (3, 7, 8), 3))


@_kind("severe_class_imbalance", along=("overfitting", "sustained_plateau"))
def forgotten_class() -> Training:
    training = _plain(0.02)
    return replace(training, data=data.rare(data.digits(), (4,), 0))


# The rate.


_WILD = (
    "loss_spike",
    "gradient_spike",
    "exploding_gradients",
    "dead_units",
    "sustained_plateau",
    "nonfinite_loss",
    "nonfinite_gradients",
    "poor_gradient_health",
    "vanishing_gradients",
    "severe_class_imbalance",
    "overfitting",
    "stalled_layer",
    "sharp_minimum",
)


@_kind("divergence", "learning_rate_too_high", along=_WILD, begins=MIDDLE)
def rate_raised() -> Training:
    training = _plain(0.02)

    def rise(step: int) -> None:
        if step == MIDDLE:
            training.optimizer.param_groups[0]["lr"] = 2.0

    return replace(training, forward=rise)


@_kind("divergence", "learning_rate_too_high", along=_WILD, begins=MIDDLE)
def wrong_sign() -> Training:
    # From the middle on, the loss is climbed.
    training = _plain(0.005)

    def turn(step: int) -> None:
        if step >= MIDDLE:
            for parameter in training.network.parameters():
                if parameter.grad is not None:
                    parameter.grad.neg_()

    return replace(training, before=turn)


@_kind("learning_rate_too_high", "divergence", along=_WILD)
def fast_sgd() -> Training:
    return _plain(1.5, 64, 64)


@_kind("learning_rate_too_high", "divergence", along=_WILD)
def fast_adam() -> Training:
    training = _plain()
    return replace(training, optimizer=Adam(training.network.parameters(), 1.0))


@_kind("learning_rate_too_high", "divergence", along=_WILD)
def fast_regression() -> Training:
    network = nn.Linear(16, 1)
    return Training(network=network, optimizer=SGD(network.parameters(), 1.3), data=data.line(), loss=f.mse_loss)


@_kind("divergence", "learning_rate_too_high", along=_WILD, begins=MIDDLE)
def gradients_never_cleared() -> Training:
    training = _plain(0.02)
    kept: list[Tensor] = []

    def keep(step: int) -> None:
        if step >= MIDDLE:
            now = [each.grad for each in training.network.parameters() if each.grad is not None]
            for gradient, before in zip(now, kept, strict=False):
                gradient.add_(before)
            kept[:] = [each.clone() for each in now]

    return replace(training, before=keep)


# A layer that stands still.


@_kind("stalled_layer", along=("vanishing_gradients", "dead_units"), begins=MIDDLE)
def detached() -> Training:
    network = networks.Detachable(networks.mlp(64, 64, 64), networks.mlp(64, 64, 10))
    training = Training(network=network, optimizer=SGD(network.parameters(), 0.02, 0.9), data=data.digits())

    def cut(step: int) -> None:
        network.cut = step >= MIDDLE

    return replace(training, forward=cut)


@_kind("stalled_layer", begins=MIDDLE)
def rate_of_zero() -> Training:
    # A schedule that ends for one of two groups.
    training = _plain()
    first = networks.linears(training.network)[0]
    others = [each for each in training.network.parameters() if all(each is not own for own in first.parameters())]
    optimizer = SGD([{"params": list(first.parameters())}, {"params": others}], 0.02, 0.9)

    def end(step: int) -> None:
        if step >= MIDDLE:
            optimizer.param_groups[0]["lr"] = 0.0

    return replace(training, optimizer=optimizer, forward=end)


# Curvature.


@_kind("sharp_minimum", along=("learning_rate_too_high", "loss_spike", "gradient_spike", "divergence"))
def edge_of_stability() -> Training:
    # Whole batches at a rate that the curvature can just not bear: the loss goes up and down from step to step.
    network = networks.mlp(64, 64, 64, 10, activation=nn.Tanh)
    optimizer = SGD(network.parameters(), 0.7)
    return Training(network=network, optimizer=optimizer, data=data.digits(), batch=1438, epochs=60, probed=True)
