"""Everything that the package imports is installed with it: declared in ``pyproject.toml``, or part of something declared."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import nissa
from tests.support import ROOT

SOURCE: Final = Path(nissa.__file__).parent
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

DISTRIBUTIONS: Final = {
    "google.protobuf": "protobuf",
    "google.rpc": "googleapis-common-protos",
    "grpc": "grpcio",
    "opentelemetry.exporter.otlp.json": "opentelemetry-exporter-otlp-json-file",
    "opentelemetry.exporter.otlp.proto": "opentelemetry-exporter-otlp",
    "opentelemetry.instrumentation": "opentelemetry-instrumentation",
    "opentelemetry.proto": "opentelemetry-exporter-otlp",  # pinned by it, as is what else begins like that
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry.semconv": "opentelemetry-sdk",
    "opentelemetry": "opentelemetry-api",
    "pydantic_core": "pydantic",
    "pydantic_settings": "pydantic-settings",
    "sklearn": "scikit-learn",
    "triton": "torch",  # where there is one for the platform
    "yaml": "pyyaml",
}
"""Distributions whose modules are called otherwise."""
OF_USERS: Final = {
    "accelerate": {"integrations/accelerate.py"},
    "lightning": {"integrations/lightning.py"},
    "pytest": {"pytest_plugin.py"},
    "transformers": {"integrations/transformers.py"},
}
"""Modules of frameworks that only their users import, and the files that serve these."""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def distribution(module: str) -> str:
    known = [prefix for prefix in DISTRIBUTIONS if f"{module}.".startswith(f"{prefix}.")]
    return DISTRIBUTIONS[max(known, key=len)] if known else module.partition(".")[0]


def named(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", each, maxsplit=1)[0].lower() for each in requirements}


def test_every_import_of_another_distribution_is_declared() -> None:
    declared = named(PROJECT["dependencies"])
    extras = {name for each in PROJECT["optional-dependencies"].values() for name in named(each)}
    undeclared, used = set(), set()
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE).as_posix()
        for module in imports(path):
            top = module.partition(".")[0]
            if top == "nissa" or top in sys.stdlib_module_names or place in OF_USERS.get(top, ()):
                continue
            used.add(distribution(module))
            if distribution(module) not in declared | extras:
                undeclared.add(f"{place}: {module}")
    assert undeclared == set()
    # Jinja2 and Plotly are imported by `nissa.report` and `nissa.charts`, scikit-learn by the demo.
    assert (declared | extras) - used == set()
