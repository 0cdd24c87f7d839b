"""The seeded runs export what they exported before, apart from ids and what depends on the machine."""

import logging
import random
from difflib import unified_diff
from pathlib import Path

import numpy as np
import pytest
import torch

from nissa.semconv import metrics
from tests.seeded import program
from tests.seeded.canonical import EXPECTED, FILES, canonical

MOST_LINES = 60


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what the runs export, and leave the process as it was."""
    folder = tmp_path_factory.mktemp("seeded")
    logger = logging.getLogger("nissa")
    handlers, propagate, threads = list(logger.handlers), logger.propagate, torch.get_num_threads()
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 - the global state is the point
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)  # the program goes into its folder itself; this returns from there
            program.main(folder)
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        torch.set_num_threads(threads)
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002 - see above
        random.setstate(states[2])
    return canonical(folder)


@pytest.mark.parametrize("name", FILES)
def test_the_seeded_runs_export_the_same_as_before(exported: dict[str, str], name: str) -> None:
    path = Path("tests", "seeded", "expected", f"{name}.txt")
    expected = (EXPECTED / f"{name}.txt").read_text()
    if exported[name] != expected:
        before, after = expected.splitlines(keepends=True), exported[name].splitlines(keepends=True)
        lines = list(unified_diff(before, after, str(path), "exported now", n=1))
        more = f"... and {len(lines) - MOST_LINES} lines more\n" if len(lines) > MOST_LINES else ""
        pytest.fail(
            f"Exported telemetry has changed.\n{''.join(lines[:MOST_LINES])}{more}"
            "If this is meant, write the new text with `python -m tests.seeded` and commit it.",
            pytrace=False,
        )


def test_the_seeded_runs_cover_what_a_refactoring_may_break(exported: dict[str, str]) -> None:
    for name, texts in COVERED.items():
        for text in texts:
            assert text in exported[name], f"{text!r} occurs nowhere in {name}"


_ELSEWHERE = {
    metrics.SEED_UNSAMPLED,
    metrics.BACKWARD_VALUE,
    metrics.DEVICE_MEMORY,
    metrics.STEP_SKEW,
    metrics.REPLICA_COMPARISONS,
    metrics.REPLICA_MISMATCH,
}
"""Metrics that need a sampler that drops, a script that logs no loss, a CUDA device, and several ranks."""

COVERED = {
    "traces": (
        "seed.embargoed",
        "seed.resetting",
        "seed.dormant",
        "seed.fossilized",
        "seed.culled",
        "nissa.seed.outcome = interrupted",
        "nissa.seed.attempt = 1",
        "event nissa.seed.isolation_violation",
        "red_flag(",
        "checkpoint(",
        "link:",
    ),
    "metrics": (
        *(spec.name for spec in metrics.ALL if spec not in _ELSEWHERE),
        "nissa.red_flag.name = nonfinite_gradients",
        "nissa.red_flag.name = loss_spike",
        "nissa.red_flag.name = sustained_plateau",
        "exemplar",
    ),
    "logs": (
        "nissa.event.red_flag_raised",
        "nissa.event.red_flag_cleared",
        "nissa.event.policy_decision",
        "nissa.event.improvement_detected",
        "nissa.event.performance_degradation",
        "nissa.event.plateau_detected",
        "nissa.narrative",
    ),
    "objects": ("/brief", "features=", "/state", "analytics", "event at"),
}
"""What the program makes happen, so that a change of the program loses none of it unnoticed."""
