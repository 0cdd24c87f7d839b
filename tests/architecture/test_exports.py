import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import nissa

_HEAVY = ("torch", "opentelemetry.sdk", "grpc", "pydantic", "numpy", "rich", "yaml", "typer")


def _loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = _loaded_after("import nissa")
    assert not loaded & set(_HEAVY)


def test_the_hub_and_events_work_without_anything_heavy() -> None:
    use = "import nissa; nissa.get_hub().emit(nissa.TelemetryEvent('X', seed_id='s')); nissa.reset_hub().close()"
    assert not _loaded_after(use) & set(_HEAVY)


def test_what_is_heavy_is_loaded_by_what_uses_it() -> None:
    assert "pydantic" in _loaded_after("import nissa; nissa.TelemetryConfig")
    assert "torch" in _loaded_after("import nissa; nissa.collect_gradients")


def test_every_public_name_exists_and_is_listed_in_order() -> None:
    assert nissa.__all__ == sorted(nissa.__all__)
    for name in nissa.__all__:
        assert getattr(nissa, name) is not None
    assert dir(nissa) == nissa.__all__


def test_every_lazy_name_is_public() -> None:
    assert set(nissa._LAZY) <= set(nissa.__all__)
    for name, module in nissa._LAZY.items():
        assert hasattr(importlib.import_module(module), name)


def test_type_checkers_see_the_names_that_are_loaded_on_first_use() -> None:
    tree = ast.parse(Path(nissa.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imported = {
        alias.name: (node.module, alias.asname)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("nissa.")
        for alias in node.names
    }
    assert imported == {name: (module, name) for name, module in nissa._LAZY.items()}


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = nissa.no_such_name  # type: ignore[attr-defined]
