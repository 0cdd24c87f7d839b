"""The types of the public surface, as programs of users see them where Nissa is installed."""

import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from tests.installed.environments import Environment, build, run, sources, uv

HERE = Path(__file__).parent
_ERROR = re.compile(r"(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", re.MULTILINE)
_EXPECTED = re.compile(r"# error: ([\w, -]+)$")
_PYRIGHT = re.compile(r"user_code\.py:\d+:\d+ - error: .*")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("types")
    (wheel,) = build(sources(folder / "source"), folder / "dist", "--wheel").glob("*.whl")
    made = Environment.create(folder / "venv")
    made.install(f"nissa @ {wheel.as_uri()}", "mypy>=1.15")
    for path in HERE.glob("*_*.py"):
        if not path.name.startswith("test_"):
            shutil.copy2(path, folder)
    return made


def expected(path: Path) -> dict[int, set[str]]:
    """Return the errors that a file announces, by line."""
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if (announced := _EXPECTED.search(line)) is not None:
            found[number] = set(announced[1].split(", "))
    return found


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_mypy_knows_the_types_of_a_program_and_finds_every_mistake(environment: Environment) -> None:
    folder = environment.folder.parent
    mypy = environment.program("mypy")
    out = run(mypy, "--strict", "--config-file=", "user_code.py", "wrong_uses.py", cwd=folder, status=1).stdout
    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, line, code in _ERROR.findall(out):
        found[name][int(line)].add(code)
    assert found["user_code.py"] == {}, out
    assert found["wrong_uses.py"] == expected(HERE / "wrong_uses.py"), out


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_pyright_knows_the_types_of_a_program(environment: Environment) -> None:
    out = uv(
        *("tool", "run", "pyright", "--pythonpath", environment.program("python"), "user_code.py"),
        cwd=environment.folder.parent,
    )
    assert "0 errors" in out, out
    assert _PYRIGHT.findall(out) == []
