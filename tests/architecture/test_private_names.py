"""Names that other libraries do not publish are used in the two compat modules, and nowhere else."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

SOURCE = ROOT / "src" / "nissa"
COMPAT = {SOURCE / "otel" / "compat.py", SOURCE / "torch_compat.py"}

PUBLISHED = {"opentelemetry._logs", "opentelemetry.sdk._logs", "opentelemetry._events"}
"""Modules that the documentation of OpenTelemetry describes, in spite of their names."""

SUPPRESSED = {
    "gradients/hooks.py": {"_getframe"},
    "hub/critical.py": {"_is_owned", "_at_fork_reinit"},
    "integrations/callers.py": {"_getframe"},
    "integrations/zero_code/import_hook.py": {"_initializing"},
    "kernels/cpu.py": {"_pieces"},
    "run/exit_status.py": {"_getframe"},
    "run/log_capture.py": {"_getframe"},
    "run/run.py": {"_runtime", "_send", "_abandon"},
    "run/signal_watch.py": {"_current_frames"},
}
"""Private names of the standard library and of Nissa itself, which the linter allows where a comment says why."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yield the private names of other libraries that a statement imports."""
    module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
    if module.startswith("nissa"):
        return
    for alias in node.names:
        path = f"{module}.{alias.name}".strip(".")
        if not any(path == each or path.startswith(f"{each}.") for each in PUBLISHED):
            yield from filter(is_private, path.split("."))


def named(node: ast.Call) -> Iterator[str]:
    """Yield the private names that a call looks up."""
    if isinstance(node.func, ast.Name) and node.func.id in {"getattr", "hasattr", "setattr", "delattr"}:
        for argument in node.args[1:2]:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and is_private(argument.value):
                yield argument.value


def private_names(tree: ast.Module) -> Iterator[str]:
    """Yield the private names of other libraries and objects that a module uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(node)
        elif isinstance(node, ast.Call):
            yield from named(node)
        elif isinstance(node, ast.Compare) and any(isinstance(each, ast.In) for each in node.ops):
            if isinstance(node.left, ast.Constant) and isinstance(node.left.value, str) and is_private(node.left.value):
                yield node.left.value
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = node.value
            while isinstance(owner, ast.Attribute) and is_private(owner.attr):
                owner = owner.value
            if not (isinstance(owner, ast.Name) and owner.id in {"self", "cls", "other"}):
                yield node.attr


def own_names(trees: dict[Path, ast.Module]) -> set[str]:
    """Return the private attributes and functions that Nissa defines itself."""
    found: set[str] = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
    return found


def test_private_names_of_other_libraries_are_used_in_the_compat_modules_alone() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
    own = own_names({path: tree for path, tree in trees.items() if path not in COMPAT})
    found = {
        path.relative_to(SOURCE).as_posix(): names
        for path, tree in trees.items()
        if path not in COMPAT and (names := {name for name in private_names(tree) if name not in own})
    }
    assert found == {path: names - own for path, names in SUPPRESSED.items() if names - own}
    assert trees.keys() >= COMPAT


def test_a_private_name_is_found_however_it_is_reached() -> None:
    source = """
import torch
from opentelemetry.context import _KEY
from opentelemetry.exporter._shared import encode
from opentelemetry.sdk._logs import LoggerProvider
getattr(provider, "_readers", None)
"_modules" in vars(model)
torch._foreach_norm([])
provider._config.resource
self._own
"""
    assert sorted(private_names(ast.parse(source))) == [
        "_KEY", "_config", "_foreach_norm", "_modules", "_readers", "_shared",
    ]  # fmt: skip
