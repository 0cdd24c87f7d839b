"""Every benchmark can be imported: what one needs of another, or of Nissa, is there."""

from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import benchmarks

NEEDS = {"benchmarks.plots": "matplotlib"}
"""Modules that import a package which is not among those for development."""

MODULES = [each.name for each in walk_packages(benchmarks.__path__, "benchmarks.")]


def test_every_file_is_a_module_that_is_tried() -> None:
    files = [path for path in Path(benchmarks.__path__[0]).rglob("*.py") if path.name != "__init__.py"]
    assert len([*files, *Path(benchmarks.__path__[0]).rglob("*/__init__.py")]) == len(MODULES) > 0
    assert NEEDS.keys() <= {*MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_a_benchmark_can_be_imported(module: str) -> None:
    if package := NEEDS.get(module):
        pytest.importorskip(package)
    import_module(module)
