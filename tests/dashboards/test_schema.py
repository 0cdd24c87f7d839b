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


def _compile(schema: Path, folder: Path, board: Json) -> str:
    """Return what the compiler says of a board; a literal may have no field that its type has not."""
    shutil.copy(SOURCE / "boards.ts", folder)
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(schema / "node_modules")
    source = folder / "board.ts"
    source.write_text(f'import type {{ Board }} from "./boards";\nexport const board: Board = {json.dumps(board)};\n')
    compiler = schema / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        ["node", str(compiler), *OPTIONS, str(source)], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_of_grafana_s_type(schema: Path, tmp_path: Path, name: str) -> None:
    assert _compile(schema, tmp_path, BOARDS[name]) == ""


def _first(board: Json, kind: str) -> Json:
    panel: Json = next(panel for panel in board["panels"] if panel["type"] == kind)
    return panel


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("timeseries", "options.legend.displayMode", "tables"),
        ("timeseries", "fieldConfig.defaults.custom.drawStile", "line"),
        ("stat", "options.graphMode", "areas"),
        ("heatmap", "options.color.steps", "64"),
        ("timeseries", "fieldConfig.defaults.unite", "s"),
        ("timeseries", "gridPos.width", 3),
    ],
)
def test_a_mistake_is_found(schema: Path, tmp_path: Path, kind: str, path: str, value: object) -> None:
    board: Json = json.loads(json.dumps(BOARDS["nissa-gradients"]))
    part = _first(board, kind)
    *parents, key = path.split(".")
    for each in parents:
        part = part[each]
    part[key] = value
    assert "board.ts(2," in _compile(schema, tmp_path, board)


def test_the_types_are_those_of_the_pinned_release() -> None:
    wanted = json.loads((SOURCE / "package.json").read_text())["devDependencies"]["@grafana/schema"]
    assert wanted == pinned()["GRAFANA_VERSION"]


def test_the_schema_s_version_is_the_one_that_the_types_have(schema: Path) -> None:
    types = schema / "node_modules/@grafana/schema/dist/esm/raw/dashboard/x/types.gen.mjs"
    found = re.search(r"schemaVersion: (\d+)", types.read_text())
    assert found is not None
    assert int(found[1]) == SCHEMA
