"""Choose blueprints by what became of their seeds: Thompson sampling from ``analytics.prior``, beside uniform choice.

A run grows a few small hosts on handwritten digits, one after the other (its episodes), and remembers from one to the next
what became of each blueprint. Both policies see the same hosts, batches and noise; they differ in what they plant.

    python examples/choose_blueprints.py                        # twenty runs of each policy: about an hour on one core
    python examples/choose_blueprints.py --runs 2 --episodes 1  # a first look

Needs ``pip install 'nissa[demo]'``.
"""

import argparse
import csv
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nissa
from nissa.demo.blueprints import BLUEPRINTS
from nissa.demo.data import Digits, load
from nissa.demo.recipe import Recipe
from nissa.demo.trainer import Trainer

Policy = Callable[[nissa.BlueprintAnalytics, random.Random], str]


def uniform(_analytics: nissa.BlueprintAnalytics, generator: random.Random) -> str:
    """Choose any blueprint."""
    return generator.choice(list(BLUEPRINTS))


def thompson(analytics: nissa.BlueprintAnalytics, generator: random.Random) -> str:
    """Choose the blueprint that is best under one draw from what is believed of each: success times gain, less the rent."""

    def value(name: str) -> float:
        prior = analytics.prior(name)
        gain = 1.0 if prior.accuracy_delta is None else prior.accuracy_delta
        rent = analytics.config.compute_price * ((analytics.multiplier(name) or 1.0) - 1)
        return prior.sample(generator) * (gain - rent)

    return max(BLUEPRINTS, key=value)


POLICIES: dict[str, Policy] = {"uniform": uniform, "thompson": thompson}


@dataclass(frozen=True)
class Episode:
    """What growing one host brought; accuracies are fractions.

    Args:
        policy: Who chose.
        run: Number of the run; the same number means the same hosts and data under both policies.
        episode: Number of the host within the run.
        planted: Seeds that germinated.
        kept: Those that were fossilized.
        gain: The host's accuracy at the end less that before its first seed.
        reward: The gain less ``analytics.rent``.
    """

    policy: str
    run: int
    episode: int
    planted: int
    kept: int
    gain: float
    reward: float


@dataclass(frozen=True)
class Margin:
    """A mean difference and the bootstrap's 95 % confidence interval."""

    mean: float
    low: float
    high: float


def grow(policy: str, run: int, digits: Digits, *, episodes: int, epochs: int) -> Iterator[Episode]:
    """Let a policy grow the hosts of one run; yield what each brought."""
    generator = random.Random(run)  # noqa: S311 - a policy's choices are no secret
    quiet: dict[str, Any] = {"console__enabled": False, "files__directory": tempfile.mkdtemp()}
    with nissa.start("minimal", service_name="choose-blueprints", **quiet) as telemetry:
        analytics = telemetry.analytics
        for episode in range(episodes):
            trainer = Trainer(
                telemetry.environment(episode),
                env_id=episode,
                digits=digits,
                recipe=Recipe(seed=1000 * run + 100 * episode, epochs=epochs),
                choose=lambda: POLICIES[policy](analytics, generator),
            )
            for epoch in range(epochs):
                trainer.run_epoch(epoch)
            board, gain = analytics.episode(episode), _gain(trainer)
            reward = gain - analytics.rent(episode)
            yield Episode(policy, run, episode, board.germinated, board.fossilized, gain, reward)


def _gain(trainer: Trainer) -> float:
    if not trainer.grafts:
        return 0.0
    window, first = trainer.recipe.policy.window, trainer.grafts[0].epoch + 1
    before, after = trainer.accuracies[:first][-window:], trainer.accuracies[-window:]
    return float(np.mean(after) - np.mean(before))


def margin(episodes: Sequence[Episode], what: str = "reward", resamples: int = 10_000) -> Margin:
    """Return by how much Thompson sampling was better than uniform choice, over the runs in pairs."""
    runs = sorted({each.run for each in episodes})
    pairs = [[_mean(episodes, policy, run, what) for policy in ("thompson", "uniform")] for run in runs]
    differences = np.asarray([better - other for better, other in pairs])
    chosen = np.random.default_rng(0).integers(0, len(runs), (resamples, len(runs)))
    low, high = np.quantile(differences[chosen].mean(axis=1), (0.025, 0.975))
    return Margin(float(differences.mean()), float(low), float(high))


def _mean(episodes: Sequence[Episode], policy: str, run: int, what: str) -> float:
    return float(np.mean([getattr(each, what) for each in episodes if (each.policy, each.run) == (policy, run)]))


def told(episodes: Sequence[Episode]) -> list[str]:
    """Return the comparison in words."""
    runs = len({each.run for each in episodes})
    lines = []
    for policy in POLICIES:
        mine = [each for each in episodes if each.policy == policy]
        planted, kept = sum(each.planted for each in mine), sum(each.kept for each in mine)
        reward = np.mean([each.reward for each in mine])
        rate = f"{kept / planted:.0%}" if planted else "n/a"
        lines.append(f"{policy:9} {planted:4} seeds, {kept:3} kept ({rate}), mean reward {reward:+.4f} per host")
    found = margin(episodes)
    verdict = "better" if found.low > 0 else "worse" if found.high < 0 else "not told apart"
    interval = f"{found.low:+.4f} to {found.high:+.4f}"
    lines.append(f"thompson - uniform: {found.mean:+.4f} (95 % interval {interval}, {runs} runs): {verdict}")
    return lines


def main() -> None:
    """Compare the policies, and print the margin, whatever it is."""
    parser = argparse.ArgumentParser(description="Thompson sampling from analytics.prior, beside uniform choice.")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=48)
    parser.add_argument("--csv", type=Path, help="a line for each episode; runs that it has already are not repeated")
    given = parser.parse_args()
    torch.set_num_threads(1)  # tensors this small are slower on several
    digits = load(torch.Generator().manual_seed(7))
    episodes = _read(given.csv) if given.csv and given.csv.exists() else []
    for run in range(given.runs):
        if any(each.run == run for each in episodes):
            continue
        for policy in POLICIES:
            episodes += grow(policy, run, digits, episodes=given.episodes, epochs=given.epochs)
        print(f"after run {run + 1} of {given.runs}:", *told(episodes), sep="\n  ", flush=True)
        if given.csv:
            _write(given.csv, episodes)
    print(*told(episodes), sep="\n")


def _write(path: Path, episodes: Sequence[Episode]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Episode)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(each) for each in episodes)


def _read(path: Path) -> list[Episode]:
    with path.open(encoding="utf-8", newline="") as file:
        return [_episode(row) for row in csv.DictReader(file)]


def _episode(row: dict[str, str]) -> Episode:
    counts = {name: int(row[name]) for name in ("run", "episode", "planted", "kept")}
    return Episode(policy=row["policy"], gain=float(row["gain"]), reward=float(row["reward"]), **counts)


if __name__ == "__main__":
    main()
