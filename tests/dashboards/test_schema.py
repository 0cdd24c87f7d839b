"""The boards compile against Grafana's own types, of the release that is pinned."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dashboards.board import SCHEMA
from scripts.stack_build import locked
from scripts.stack_settings import cache, pinned
from tests.dashboards.reading import BOARDS, Json

SOURCE = Path(__file__).parent / "schema"
OPTIONS = ("--noEmit", "--strict", "--skipLibCheck", "--module", "preserve", "--moduleResolution", "bundler")


@pytest.fixture(scope="session")
def schema() -> Path:
    """Return a folder with the compiler and Grafana's types; it is made once per machine."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm, which brings Grafana's types")
    manifest = b"".join((SOURCE / name).read_bytes() for name in ("package.json", "package-lock.json"))
    folder = cache() / f"schema-{hashlib.sha256(manifest).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        if not (folder / "node_modules").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(SOURCE / name, folder)
            done = subprocess.run(
                [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, check=False
            )
            if done.returncode:
                pytest.skip(f"npm could not fetch Grafana's types: {done.stderr.decode()[-300:]}")
    return folder


@pytest.fixture(scope="module")
def said(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what the compiler says of each board, and of boards with a mistake, by name; it reads the types once.

    A literal may have no field that its type has not.
    """
    folder = tmp_path_factory.mktemp("boards")
    shutil.copy(SOURCE / "boards.ts", folder)
    (folder / "node_modules").symlink_to(schema / "node_modules")
    boards = BOARDS | {f"mistake-{number}": _with_mistake(*mistake) for number, mistake in enumerate(MISTAKES)}
    for name, board in boards.items():
        text = f'import type {{ Board }} from "./boards";\nexport const board: Board = {json.dumps(board)};\n'
        (folder / f"{name}.ts").write_text(text)
    compiler = schema / "node_modules" / "typescript" / "bin" / "tsc"
    sources = [f"{name}.ts" for name in boards]
    done = subprocess.run(
        ["node", str(compiler), *OPTIONS, *sources], cwd=folder, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    return {name: "\n".join(line for line in lines if line.startswith(f"{name}.ts")) for name in boards}


MISTAKES: tuple[tuple[str, str, object], ...] = (
    ("timeseries", "options.legend.displayMode", "tables"),
    ("timeseries", "fieldConfig.defaults.custom.drawStile", "line"),
    ("stat", "options.graphMode", "areas"),
    ("heatmap", "options.color.steps", "64"),
    ("timeseries", "fieldConfig.defaults.unite", "s"),
    ("timeseries", "gridPos.width", 3),
)
"""Type of the panel, path of a field, and a value that the field may not have."""


def _with_mistake(kind: str, path: str, value: object) -> Json:
    board: Json = json.loads(json.dumps(BOARDS["nissa-gradients"]))
    part: Json = next(panel for panel in board["panels"] if panel["type"] == kind)
    *parents, key = path.split(".")
    for each in parents:
        part = part[each]
    part[key] = value
    return board


def test_the_boards_are_of_grafana_s_types(said: dict[str, str]) -> None:
    assert {name: said[name] for name in BOARDS} == dict.fromkeys(BOARDS, "")


def test_mistakes_are_found(said: dict[str, str]) -> None:
    for number, mistake in enumerate(MISTAKES):
        assert f"mistake-{number}.ts(2," in said[f"mistake-{number}"], mistake


def test_the_types_are_those_of_the_pinned_release() -> None:
    wanted = json.loads((SOURCE / "package.json").read_text())["devDependencies"]["@grafana/schema"]
    assert wanted == pinned()["GRAFANA_VERSION"]


def test_the_schema_s_version_is_the_one_that_the_types_have(schema: Path) -> None:
    types = schema / "node_modules/@grafana/schema/dist/esm/raw/dashboard/x/types.gen.mjs"
    found = re.search(r"schemaVersion: (\d+)", types.read_text())
    assert found is not None
    assert int(found[1]) == SCHEMA
