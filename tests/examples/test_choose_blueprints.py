import csv
import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nissa import BlueprintAnalytics, TelemetryEvent
from tests import preloaded

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "choose_blueprints.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("choose_blueprints", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def lived(analytics: BlueprintAnalytics, blueprint: str, *, kept: bool, times: int) -> None:
    for number in range(times):
        seed = f"{blueprint}-{kept}-{number}"
        analytics.emit(TelemetryEvent("SEED_GERMINATED", seed_id=seed, data={"blueprint_id": blueprint}))
        end = "SEED_FOSSILIZED" if kept else "SEED_CULLED"
        analytics.emit(TelemetryEvent(end, seed_id=seed, data={"improvement": 0.05 if kept else -0.01}))


def chosen(policy: object, analytics: BlueprintAnalytics) -> dict[str, int]:
    generator = random.Random(0)  # noqa: S311 - a policy's choices are no secret
    counts = dict.fromkeys(("conv_light", "norm", "depthwise", "scale", "attention"), 0)
    assert callable(policy)
    for _ in range(1000):
        counts[policy(analytics, generator)] += 1
    return counts


def test_thompson_sampling_learns_what_is_kept_and_still_explores(example: ModuleType) -> None:
    analytics = BlueprintAnalytics()
    lived(analytics, "depthwise", kept=True, times=3)
    for other in ("conv_light", "norm", "scale"):
        lived(analytics, other, kept=False, times=3)
    counts = chosen(example.thompson, analytics)
    assert counts["depthwise"] > 700
    assert 0 < counts["norm"] < 50
    assert min(chosen(example.uniform, analytics).values()) > 150


def test_thompson_sampling_pays_rent(example: ModuleType) -> None:
    analytics = BlueprintAnalytics()
    for blueprint in ("norm", "attention"):  # as successful as each other; attention costs 0.1 * 0.35 of reward
        lived(analytics, blueprint, kept=True, times=8)
    counts = chosen(example.thompson, analytics)
    assert counts["norm"] > 3 * counts["attention"]


def test_the_margin_is_taken_over_runs_in_pairs(example: ModuleType) -> None:
    def episode(policy: str, run: int, reward: float) -> object:
        return example.Episode(policy, run, 0, 5, 1, reward, reward)

    # Runs differ much more from each other than the policies do within a run.
    episodes = [
        episode(policy, run, run + better * (0.1 + 0.01 * (run % 2)))
        for run in range(20)
        for policy, better in (("uniform", 0), ("thompson", 1))
    ]
    found = example.margin(episodes)
    assert found.mean == pytest.approx(0.105)
    assert 0.1 <= found.low < found.mean < found.high <= 0.11
    assert example.told(episodes)[-1].endswith("20 runs): better")
    level = [episode(policy, run, run) for run in range(20) for policy in ("uniform", "thompson")]
    assert example.told(level)[-1].endswith("not told apart")


def test_the_document_says_what_the_committed_results_say(example: ModuleType) -> None:
    episodes = example._read(ROOT / "benchmarks" / "results" / "choices.csv")
    assert len({each.run for each in episodes}) == 20
    document = (ROOT / "docs" / "how-to" / "blueprints.md").read_text(encoding="utf-8")
    assert "```text\n" + "\n".join(example.told(episodes)) + "\n```" in document


def _run(command: list[str]) -> str:
    done = preloaded.run(command)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.full
def test_it_runs_as_it_is_documented_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    table = tmp_path / "choices.csv"
    command = [str(SCRIPT), "--runs", "1", "--episodes", "1", "--epochs", "34", "--csv", str(table)]
    first = _run(command)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["policy"] for row in rows] == ["uniform", "thompson"]
    assert all(int(row["planted"]) > 0 for row in rows)
    assert "95 % interval" in first
    again = _run(command)
    assert "after run" in first
    assert "after run" not in again
    assert again.splitlines()[-1] == first.splitlines()[-1]
