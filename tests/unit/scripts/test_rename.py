import subprocess
from pathlib import Path

import pytest

from scripts.identifiers import uses
from scripts.rename import Plan, RenameError, apply, changed_tests, check, prove, sources

THING = '''"""Things; `begin` makes one."""


class Thing:
    size: int = 0

    def finish(self) -> int:
        return self.size


def begin(size: int = 0) -> "Thing":
    """Return a Thing, see nissa.area.old.Thing."""
    begin_ = size  # another name
    return Thing()
'''
USER = """from typing import TYPE_CHECKING

from nissa.area import old
from nissa.area.old import begin

if TYPE_CHECKING:
    from nissa.area.old import Thing


def use(thing: "Thing | None") -> int:
    made = begin(size=1)
    return made.finish() + old.begin().finish()


def shadow(begin: int) -> list[int]:
    return [begin for begin in range(begin)]
"""
TEST = """from nissa.area.old import Thing


def test_thing() -> None:
    assert Thing().finish() == 0
"""
FILES = {
    "src/nissa/__init__.py": "",
    "src/nissa/area/__init__.py": "",
    "src/nissa/area/old.py": THING,
    "src/nissa/user.py": USER,
    "tests/test_old.py": TEST,
    "docs/page.md": "See `src/nissa/area/old.py` and `nissa.area.old.Thing.finish`; older.py stays.\n",
    "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["src"]\n',
}
PLAN = Plan(
    modules={"nissa.area.old": "nissa.area.new", "tests.test_old": "tests.test_new"},
    names={"nissa.area.old:begin": "start", "nissa.area.old:Thing": "Item", "nissa.area.old:Thing.finish": "end"},
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a repository with a few files."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def test_a_mapping_is_applied_to_code_paths_and_prose_and_proves_clean(root: Path) -> None:
    before = sources(root)
    changed = apply(PLAN, root)
    assert changed == ["docs/page.md", "src/nissa/area/new.py", "src/nissa/user.py", "tests/test_new.py"]
    after = sources(root)
    made = after["src/nissa/area/new.py"]
    for text in ("`start` makes one", "class Item:", "def end(self)", 'def start(size: int = 0) -> "Item":'):
        assert text in made
    assert "begin_ = size" in made
    user = after["src/nissa/user.py"]
    assert "from nissa.area import new\nfrom nissa.area.new import start\n" in user
    assert 'thing: "Item | None"' in user
    assert "made.end() + new.start().end()" in user
    assert "def shadow(begin: int) -> list[int]:\n    return [begin for begin in range(begin)]" in user
    assert (root / "docs/page.md").read_text() == (
        "See `src/nissa/area/new.py` and `nissa.area.new.Item.end`; older.py stays.\n"
    )
    assert prove(before, after, PLAN) == []


@pytest.mark.parametrize(
    ("path", "old", "new", "seen"),
    [
        ("src/nissa/user.py", "size=1", "size=2", "differs"),
        ("src/nissa/user.py", "new.start()", "new.begin()", "differs"),
        ("src/nissa/area/new.py", "return self.size", 'return self.size + len("x")', "differs"),
        ("tests/test_new.py", "== 0", "== 1", "differs"),
    ],
)
def test_a_change_besides_names_is_found(root: Path, path: str, old: str, new: str, seen: str) -> None:
    before = sources(root)
    apply(PLAN, root)
    after = sources(root)
    assert old in after[path]
    found = prove(before, after | {path: after[path].replace(old, new)}, PLAN)
    assert found[0].startswith(f"{path} {seen}")


def test_a_name_that_captures_another_one_is_found(root: Path) -> None:
    text = "from nissa.area.old import begin\n\n\ndef use(start: int) -> object:\n    return begin(start)\n"
    before = sources(root) | {"src/nissa/taken.py": text}
    apply(PLAN, root)
    after = sources(root) | {"src/nissa/taken.py": text.replace("old", "new").replace("begin", "start")}
    found = prove(before, after, PLAN)
    assert found
    assert any("start" in each and "now" in each for each in found)


def test_files_that_vanish_or_appear_are_found(root: Path) -> None:
    texts = sources(root)
    assert prove(texts, {name: text for name, text in texts.items() if name != "src/nissa/user.py"}, Plan()) == [
        "src/nissa/user.py: is missing"
    ]
    assert prove(texts, texts | {"src/nissa/more.py": ""}, Plan()) == ["src/nissa/more.py: is new"]


def test_a_member_that_two_classes_have_needs_its_files(root: Path) -> None:
    other = "class Other:\n    def finish(self) -> None: ...\n\n\nOther().finish()\n"
    texts = sources(root) | {"src/nissa/other.py": other}
    with pytest.raises(RenameError, match=r"nissa\.other:Other"):
        check(PLAN, uses(texts))
    check(Plan(PLAN.modules, PLAN.names, {"nissa.area.old:Thing.finish": ["tests/*.py"]}), uses(texts))


@pytest.mark.parametrize("name", ["nissa.area.old:absent", "nissa.area.old:Thing.absent", "nissa.absent:name"])
def test_what_does_not_exist_is_not_renamed(root: Path, name: str) -> None:
    with pytest.raises(RenameError, match="absent"):
        check(Plan(names={name: "new"}), uses(sources(root)))


def test_ids_of_tests_are_mapped_one_to_one(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # ours is not in the small package of this test
    before = tmp_path_factory.mktemp("before")
    for name, text in FILES.items():
        (before / name).parent.mkdir(parents=True, exist_ok=True)
        (before / name).write_text(text)
    apply(PLAN, root)
    assert changed_tests(before, root, PLAN) == []
    path = root / "tests" / "test_new.py"
    path.write_text(path.read_text().replace("test_thing", "test_item"))
    assert changed_tests(before, root, PLAN) == [
        "test is gone: tests/test_new.py::test_thing",
        "test is new: tests/test_new.py::test_item",
    ]


def test_a_variable_is_renamed_in_its_module_only_with_the_keywords_of_its_function(root: Path) -> None:
    (root / "src/nissa/more.py").write_text("def keep(size: int) -> int:\n    return size\n")
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    before, plan = sources(root), Plan(locals={"nissa.area.old:size": "length"})
    assert apply(plan, root) == ["src/nissa/area/old.py", "src/nissa/user.py"]
    after = sources(root)
    assert "def begin(length: int = 0)" in after["src/nissa/area/old.py"]
    assert "size: int = 0\n" in after["src/nissa/area/old.py"]
    assert "begin(length=1)" in after["src/nissa/user.py"]
    assert prove(before, after, plan) == []
    assert prove(before, before, plan) != []


def test_a_package_moves_with_its_modules_and_data(root: Path) -> None:
    (root / "src/nissa/area/data.yaml").write_text("a: 1\n")
    (root / "docs/more.md").write_text("`src/nissa/area/data.yaml`, `src/nissa/area/old.py`, `nissa.area.Thing`\n")
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    plan = Plan(packages={"nissa.area": "nissa.field"}, modules={"nissa.area.old": "nissa.field.new"})
    before = sources(root)
    apply(plan, root)
    assert (root / "src/nissa/field/data.yaml").exists()
    assert not (root / "src/nissa/area/old.py").exists()
    assert "from nissa.field.new import begin" in (root / "src/nissa/user.py").read_text()
    assert (
        root / "docs/more.md"
    ).read_text() == "`src/nissa/field/data.yaml`, `src/nissa/field/new.py`, `nissa.field.Thing`\n"
    assert prove(before, sources(root), plan) == []


def test_strings_that_leave_the_process_are_kept(root: Path) -> None:
    (root / "src/nissa/user.py").write_text('ATTRIBUTE = "nissa.area.id"  # in nissa.area, as in nissa.area.id\n')
    apply(Plan(packages={"nissa.area": "nissa.field"}, kept=["nissa.area.id"]), root)
    changed = (root / "src/nissa/user.py").read_text()
    assert changed == 'ATTRIBUTE = "nissa.area.id"  # in nissa.field, as in nissa.area.id\n'
    before = sources(root)
    assert prove(before | {"src/nissa/new/__init__.py": '"""New."""\n'}, before, Plan()) != []
    assert prove(before, before | {"src/nissa/new/__init__.py": '"""New."""\n'}, Plan()) == []
    assert prove(before, before | {"src/nissa/new/__init__.py": '"""New."""\nX = 1\n'}, Plan()) != []
