"""Nissa with the oldest and the newest releases that it declares, in environments where nothing else is installed.

``RELEASES_INTO=benchmarks/results/releases.csv`` writes the releases that were tested to the table that is published.
"""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.compat.releases import FIELDS, INTO, PACKAGES
from tests.installed.environments import Environment, build, run, sources
from tests.stack.measured_rows import keep
from tests.support import ROOT

TOOLS = (
    "pytest>=8.3", "hypothesis>=6.100", "sybil>=9", "pytest-timeout>=2.3", "ipython>=8", "torchmetrics>=1.6",
    "opentelemetry-instrumentation>=0.66b0",
)  # fmt: skip
CORE = (
    "tests/compat/test_torch.py", "tests/compat/test_opentelemetry.py", "tests/integration/test_capture.py",
    "tests/integration/test_bit_identical.py", "tests/integration/test_run.py", "tests/integration/test_resuming.py",
    "tests/integration/test_several_watches.py",
)  # fmt: skip
"""Tests of every name of the compat modules, and of whole runs: watches, seeds, epochs, validations, files, resumption."""


DEPENDENCIES: "list[str]" = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "dependencies"
]


def lower_bounds() -> dict[str, Version]:
    """Return the oldest release that the project accepts of each dependency."""
    return {
        each.name: Version(part.version)
        for each in map(Requirement, DEPENDENCIES)
        for part in each.specifier
        if part.operator == ">="
    }


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
def test_the_releases_that_are_declared_work(resolution: str, tmp_path: Path) -> None:
    (wheel,) = build(sources(tmp_path / "source"), tmp_path / "dist", "--wheel").glob("*.whl")
    environment = Environment.create(tmp_path / "venv")
    environment.install("--resolution", resolution, f"nissa @ {wheel.as_uri()}", *DEPENDENCIES, *TOOLS)
    for mode in ("files", "http/protobuf", "grpc"):
        facts, _ = environment.smoke(mode, tmp_path)
    command = environment.program("nissa")
    assert "doctor" in run(command, "--help", cwd=tmp_path).stdout
    assert run(command, "profiles", "--effective", cwd=tmp_path).stdout
    oldest = {name: bound for name, bound in lower_bounds().items() if name in PACKAGES}
    if resolution == "lowest-direct":
        assert {name: Version(facts[name]).release[:2] for name in oldest} == {
            name: (*bound.release, 0)[:2] for name, bound in oldest.items()
        }
    # In the sources, but with the installed package, since ``src`` is no folder of modules for it.
    python = environment.program("python")
    out = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CORE, cwd=tmp_path / "source").stdout
    passed = re.search(r"(\d+) passed", out)
    assert passed is not None
    assert "skipped" not in out
    which = {"lowest-direct": "oldest", "highest": "newest"}[resolution]
    row = {"which": which, "tests": passed[1], "python": facts["python"], **{name: facts[name] for name in PACKAGES}}
    keep(INTO, FIELDS, row, ["which"], lambda each: ["oldest", "newest"].index(each["which"]))
