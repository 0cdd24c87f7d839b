"""What the runs train on: handwritten digits, and data made up from a random seed."""

from dataclasses import dataclass, replace
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor

WORDS = 32


@dataclass(frozen=True)
class Data:
    """Examples to train on and to validate with; ``classes`` is 0 where the targets are no classes."""

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor
    classes: int = 0

    def first(self, number: int) -> "Data":
        """Keep so many examples to train on."""
        return replace(self, x=self.x[:number], y=self.y[:number])

    def training(self, x: Tensor, y: Tensor) -> "Data":
        """Train on other examples."""
        return replace(self, x=x, y=y)


@cache
def _digits() -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32) / 8 - 1, torch.tensor(labels)


def split(x: Tensor, y: Tensor, classes: int = 0) -> Data:
    """Keep a fifth for validation, drawn anew for each run."""
    order = torch.randperm(len(x))
    held = len(x) // 5
    return Data(x[order[held:]], y[order[held:]], x[order[:held]], y[order[:held]], classes)


def digits() -> Data:
    """1,438 images of 64 pixels between -1 and 1."""
    return split(*_digits(), classes=10)


def images() -> Data:
    """The digits as images of one channel."""
    x, y = _digits()
    return split(x.view(-1, 1, 8, 8), y, classes=10)


def rows() -> Data:
    """The digits as sequences of eight rows."""
    x, y = _digits()
    return split(x.view(-1, 8, 8), y, classes=10)


def noisy(data: Data, share: float) -> Data:
    """Give a share of the training examples a label at random."""
    labels = torch.randint(0, data.classes, data.y.shape)
    return data.training(data.x, torch.where(torch.rand(len(data.y)) < share, labels, data.y))


def mislabelled(share: float) -> Data:
    """Digits of which a share has a label at random, for training and validation alike."""
    x, y = _digits()
    return split(x, torch.where(torch.rand(len(y)) < share, torch.randint(0, 10, y.shape), y), classes=10)


def rare(data: Data, few: tuple[int, ...], kept: int) -> Data:
    """Keep only so many training examples of some classes."""
    keep = torch.ones(len(data.y), dtype=torch.bool)
    for label in few:
        keep[(data.y == label).nonzero().flatten()[kept:]] = False
    return data.training(data.x[keep], data.y[keep])


def themselves() -> Data:
    """Digits whose targets are the digits."""
    x, _ = _digits()
    return split(x, x)


def curve(number: int = 1500, scale: float = 1.0, noise: float = 0.05) -> Data:
    """A smooth function of four numbers, with noise."""
    x = torch.rand(number, 4) * 4 - 2
    y = torch.sin(x[:, :1] * 2) + x[:, 1:2] * x[:, 2:3] / 2 + x[:, 3:].cos()
    return split(x, scale * (y + noise * torch.randn_like(y)))


def line(number: int = 1500) -> Data:
    """A linear function of sixteen numbers, with noise."""
    x = torch.randn(number, 16)
    return split(x, x @ torch.randn(16, 1) + 0.1 * torch.randn(number, 1))


def spirals(number: int = 1500) -> Data:
    """Three arms that wind around each other."""
    label = torch.randint(0, 3, (number,))
    radius = torch.rand(number)
    angle = radius * 4 + label * 2.094 + torch.randn(number) * 0.1
    return split(torch.stack((radius * angle.sin(), radius * angle.cos()), 1) * 2, label, classes=3)


def halves() -> Data:
    """Digits, and whether each is at least five, as a number."""
    x, y = _digits()
    return split(x, (y >= 5).float().unsqueeze(1))


def properties() -> Data:
    """Digits, and four properties of each as numbers."""
    x, y = _digits()
    return split(x, torch.stack((y % 2 == 0, y > 4, y % 3 == 0, y == y.clamp(2, 6)), 1).float())


def text(length: int = 24, number: int = 1000) -> Data:
    """Texts of a made-up language, in which a word leaves few choices for the next, and the next words as targets."""
    following = torch.randint(0, WORDS, (WORDS, 3))
    words = [torch.randint(0, WORDS, (number,))]
    choices = torch.multinomial(torch.tensor([0.8, 0.15, 0.05]), number * length, replacement=True).view(number, length)
    for place in range(length):
        words.append(following[words[-1], choices[:, place]])
    texts = torch.stack(words, 1)
    return split(texts[:, :-1], texts[:, 1:], classes=WORDS)


def bags(number: int = 1500) -> Data:
    """Bags of words of one of four topics each."""
    label = torch.randint(0, 4, (number,))
    own = label.unsqueeze(1) * 8 + torch.randint(0, 8, (number, 12))
    return split(
        torch.where(torch.rand(number, 12) < 0.45, own, torch.randint(0, WORDS, (number, 12))), label, classes=4
    )


def sums(length: int = 20, number: int = 1500) -> Data:
    """Sequences of numbers, and their mean over the marked places."""
    values, marks = torch.randn(number, length, 1), (torch.rand(number, length, 1) < 0.3).float()
    return split(torch.cat((values, marks), 2), (values * marks).sum(1) / 2)
