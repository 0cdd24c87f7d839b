"""The structure stays what it is: short functions, few imports per module, and no cycle among them."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

from scripts.generate import ROOT

_SOURCES = ROOT / "src"
_LONGEST_FUNCTION = 60
_MEDIAN_FUNCTION = 10
_MOST_IMPORTS = 20
_HAS_ALL_METHODS_OF_A_RUN = {"nissa.run.run": 27}
"""Modules that may import more, and how many: the facade of a run imports eleven only for the types of its methods."""

_FOR_TYPES_ONLY = {
    "nissa.config.feature_layout": "nissa.config.models",
    "nissa.config.summary": "nissa.config.models",
}
"""Imports for type checkers that close a cycle today."""


def _module(path: Path) -> str:
    parts = path.relative_to(_SOURCES).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


_TREES = {_module(path): ast.parse(path.read_text()) for path in sorted(_SOURCES.rglob("*.py"))}


def _lengths() -> dict[str, int]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        f"{module}:{node.name}:{node.lineno}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module, tree in _TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, functions)
    }


def _imports(module: str) -> set[str]:
    """Modules of ours that a module imports anywhere, for type checkers too."""
    found: set[str] = set()
    for node in ast.walk(_TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            within = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (within & _TREES.keys()) or {node.module}
    return {name for name in found if name in _TREES and name != module}


def test_functions_are_short() -> None:
    lengths = _lengths()
    assert {
        name: length for name, length in lengths.items() if length > _LONGEST_FUNCTION and ".kernels." not in name
    } == {}
    assert median(lengths.values()) <= _MEDIAN_FUNCTION


def test_no_module_imports_many_others() -> None:
    many = {module: len(_imports(module)) for module in _TREES}
    over = {module: number for module, number in many.items() if number > _MOST_IMPORTS}
    assert over.keys() <= _HAS_ALL_METHODS_OF_A_RUN.keys(), over
    assert all(number <= _HAS_ALL_METHODS_OF_A_RUN[module] for module, number in over.items()), over


def test_no_imports_form_a_cycle_even_those_for_type_checkers() -> None:
    graph = {module: _imports(module) for module in _TREES}
    for importing, imported in _FOR_TYPES_ONLY.items():
        graph[importing].remove(imported)  # raises once the import is gone: remove its entry above
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
