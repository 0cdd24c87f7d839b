"""What every test gets, and the tests that documents and docstrings are."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser
from sybil.parsers.rest import DocTestParser

import nissa

# How long an example takes says more of a busy machine than of the code. The examples are the same in every run, so that a
# rare one does not fail an unrelated change; `make test-full` looks for rare ones with the second profile.
hypothesis.settings.register_profile("nissa", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1_000, print_blob=True)
hypothesis.settings.load_profile("nissa")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take settings of the caller's shell away, and work in a folder of the test's own."""
    for name in os.environ:
        if name.startswith(("NISSA_", "OTEL_", "TRACEPARENT", "TRACESTATE")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def no_contained_fault(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail for a fault that was contained, unless the test provokes it on purpose."""
    hub = nissa.reset_hub()
    yield
    faults = dict(hub.error_boundary.faults)
    nissa.reset_hub()
    if request.node.get_closest_marker("faults") is None:
        assert not faults, f"contained faults: {faults}; see the log above"


LONG = (
    "tests/stack/test_demo.py",
    "tests/distributed/test_budgets.py",
    "tests/stack/doctor",
    "tests/browser",
    "tests/stack/test_replay.py",
    "tests/integration/test_exits.py",
    "tests/integration/test_absent_collector.py",
    "tests/pathologies",
    "tests/examples",
    "tests/unit/kernels/test_agreement.py",
    "tests/zero_code",
    "tests/stack",
    "tests/loops/test_public_loops.py",
    "tests/integration",
    "tests/dashboards",
    "tests/distributed",
    "tests/unit/kernels",
    "tests/unit/demo",
    "tests/unit/report",
)
"""Files and folders whose tests take the longest. They run first, so that no worker ends much later than another."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of long files first; a file's tests stay together and in their order."""
    items.sort(key=_order)


def _order(item: pytest.Item) -> int:
    path = item.nodeid.partition("::")[0]
    return next((place for place, prefix in enumerate(LONG) if path.startswith(prefix)), len(LONG))


_FIXTURES = ["clean_environment", "no_contained_fault"]
_documents = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "CONTRIBUTING.md", "docs/**/*.md", "docs/*.md"],
    fixtures=_FIXTURES,
)
_docstrings = Sybil(parsers=[DocTestParser()], patterns=["src/nissa/*.py", "src/nissa/**/*.py"], fixtures=_FIXTURES)

pytest_collect_file = (_documents + _docstrings).pytest()
