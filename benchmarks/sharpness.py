"""Duration of an average-case measurement: the original's loop, ours, one vectorised call, and one compiled call.

``python benchmarks/sharpness.py`` writes ``benchmarks/results/sharpness.csv``. Rounds are interleaved and compared in
pairs: a ratio is the median over the rounds, with the bootstrap's interval. One thread, since a busy machine disturbs
several the more.
"""

import csv
import random
import sys
import warnings
from collections.abc import Callable
from math import exp, log
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn
from torch.func import functional_call, vmap

from benchmarks.facts import commit, processor
from nissa.diagnostics.sharpness import average_case
from nissa.diagnostics.sharpness.directions import Directions
from nissa.diagnostics.sharpness.evaluating import ClosureModule

HERE = Path(__file__).parent
ROUNDS = 60
SCALE = 0.01
FIELDS = (
    "network",
    "parameters",
    "batch",
    "samples",
    "way",
    "milliseconds",
    "ratio",
    "ratio_low",
    "ratio_high",
    "rounds",
    "compile_seconds",
    "machine",
    "torch",
    "commit",
)


class Block(nn.Module):
    """A block of a transformer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, T, width)``."""
        batch, time, width = x.shape
        mixed = self.mixed(self.before(x)).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, time, width))
        return x + self.mlp(self.after(x))


class Gpt(nn.Module):
    """Two layers, characters."""

    def __init__(self, width: int = 64, characters: int = 128, time: int = 32) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(characters, width), nn.Embedding(time, width)
        self.blocks = nn.Sequential(Block(width, 4), Block(width, 4), nn.LayerNorm(width))
        self.head = nn.Linear(width, characters)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, characters, T)``."""
        found: Tensor = self.head(self.blocks(self.characters(x) + self.places.weight[: x.shape[1]])).transpose(1, 2)
        return found


def mlp(batch: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network with inputs and targets."""
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    return network, torch.randn(batch, 64), torch.randint(0, 10, (batch,))


def cnn(batch: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network with inputs and targets."""
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 10))
    return network, torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))


def gpt(batch: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network with inputs and targets."""
    text = torch.randint(0, 128, (batch, 33))
    return Gpt(), text[:, :-1], text[:, 1:]


NETWORKS = (("mlp", mlp, 32), ("mlp", mlp, 256), ("cnn", cnn, 4), ("cnn", cnn, 64), ("gpt", gpt, 1), ("gpt", gpt, 8))


@torch.no_grad()
def original(model: nn.Module, closure: Callable[[], Tensor], samples: int) -> float:
    """Measure as the original does: copy the state, and perturb and restore parameter by parameter."""
    model.eval()
    base = closure().item()
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    changes = []
    for _ in range(samples):
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * SCALE)
        changes.append(abs(closure().item() - base))
        model.load_state_dict(saved)
    return fmean(changes) / SCALE


def ways(model: nn.Module, closure: Callable[[], Tensor], samples: int) -> dict[str, Callable[[], object]]:
    """Return the compared methods; `original` is the reference."""
    kept = Directions()
    return {
        "original": lambda: original(model, closure, samples),
        "loop, drawn": lambda: average_case(
            model, closure, samples=samples, scale=SCALE, directions=Directions(max_kept_bytes=0)
        ),
        "loop": lambda: average_case(model, closure, samples=samples, scale=SCALE, directions=kept),
        "vectorised": vectorised(model, closure, samples),
        "compiled": lambda: average_case(model, closure, samples=samples, scale=SCALE, directions=kept, compiled=True),
    }


def vectorised(model: nn.Module, closure: Callable[[], Tensor], samples: int) -> Callable[[], object]:
    """Return a measurement with one call of the closure, which is not compiled; the library has no such mode."""
    names, weights = zip(*model.named_parameters(), strict=True)
    drawn = Directions().of(weights, samples)
    module = ClosureModule(model, closure)
    together = vmap(lambda given: functional_call(module, given, ()), randomness="same")

    @torch.no_grad()
    def measure() -> float:
        model.eval()
        base = closure().item()
        lengths = torch._foreach_norm(weights)  # noqa: SLF001 - as the library does
        steps = (drawn[index] for index in range(samples))
        pairs = zip(names, weights, lengths, zip(*steps, strict=True), strict=True)
        moved = {
            f"model.{name}": torch.stack(each).mul_(SCALE * length) + weight for name, weight, length, each in pairs
        }
        found: float = (together(moved) - base).abs().mean().item() / SCALE
        return found

    return measure


def measure(name: str, make: Callable[[int], tuple[nn.Module, Tensor, Tensor]], batch: int, samples: int) -> list[dict]:
    """Return the rows of one network."""
    torch.manual_seed(0)
    torch.compiler.reset()
    model, x, y = make(batch)
    compared = ways(model, lambda: F.cross_entropy(model(x), y), samples)
    first = {}
    for way, call in compared.items():
        started = perf_counter()
        call()
        first[way] = perf_counter() - started
        call()
    seconds: dict[str, list[float]] = {way: [] for way in compared}
    order = list(compared)
    for _ in range(ROUNDS):
        random.shuffle(order)
        for way in order:
            started = perf_counter()
            compared[way]()
            seconds[way].append(perf_counter() - started)
    parameters = sum(each.numel() for each in model.parameters())
    rows = []
    for way in compared:
        low, ratio, high = compare(seconds["original"], seconds[way])
        rows.append(
            {
                "network": name,
                "parameters": parameters,
                "batch": batch,
                "samples": samples,
                "way": way,
                "milliseconds": f"{median(seconds[way]) * 1000:.3f}",
                "ratio": f"{ratio:.2f}",
                "ratio_low": f"{low:.2f}",
                "ratio_high": f"{high:.2f}",
                "rounds": ROUNDS,
                "compile_seconds": f"{first[way]:.1f}" if way == "compiled" else "",
            }
        )
    return rows


def compare(ours: list[float], others: list[float]) -> tuple[float, float, float]:
    """Return the speedup of the other methods: lower end of the 95 % interval, median, upper end."""
    logs = [log(one / other) for one, other in zip(ours, others, strict=True)]
    drawn = random.Random(0)  # noqa: S311 - a bootstrap
    medians = sorted(median(drawn.choices(logs, k=len(logs))) for _ in range(2000))
    return exp(medians[50]), exp(median(logs)), exp(medians[-51])


def main() -> None:
    """Measure everything."""
    warnings.filterwarnings("ignore", message="There is a performance drop")
    random.seed(0)
    torch.set_num_threads(1)
    about = {
        "machine": f"{processor()}; {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "commit": commit(),
    }
    with (HERE / "results" / "sharpness.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for name, make, batch in NETWORKS:
            for samples in (5, 10):
                for row in measure(name, make, batch, samples):
                    writer.writerow({**row, **about})
                    print(*(f"{row[key]!s:<12}" for key in FIELDS[:9]), row["compile_seconds"])
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
