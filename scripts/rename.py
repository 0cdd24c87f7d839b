"""Move modules and rename identifiers by a mapping, and prove that nothing else has changed.

    python -m scripts.rename apply MAPPING.toml
    python -m scripts.rename prove REVISION MAPPING.toml [--tests]

The mapping has these tables, all optional::

    kept = ["nissa.area.id"]                  # strings that leave the process and are never rewritten; before the tables

    [modules]                                 # moved with git mv; a test or a script is a module too
    "nissa.area.old" = "nissa.area.new"
    "tests.unit.area.test_old" = "tests.unit.area.test_new"

    [packages]                                # folders with all that is in them; [modules] has the modules that change further
    "nissa.area" = "nissa.field"
    "tests.unit.area" = "tests.unit.field"

    [names]                                   # under the module's old name
    "nissa.area.old:begin" = "start"          # of a module
    "nissa.area.old:Thing.finish" = "end"     # of a class: method, attribute or field

    [members]                                 # files with uses of a member whose name several classes have
    "nissa.area.old:Thing.finish" = ["src/nissa/area/*.py", "tests/unit/area/*.py"]

    [locals]                                  # variables and parameters of that name in a module, under the module's old name
    "nissa.area.old:thing" = "item"

    [everywhere]                              # every identifier of that name: variables, parameters, members
    "thingy" = "item"

    [strings]                                 # whole string literals, such as names handed to getattr
    "_thingy" = "_item"

Names of modules are resolved by scope: ``begin`` is renamed only where it means that function. Members are not, since that
takes types: without an entry in ``members`` a member is renamed wherever it is used, which is refused where a second class
has a member of that name. Keyword arguments follow where the class or function itself is called; other ones need
``everywhere``.

In documents, docstrings and comments dotted names, paths and distinctive names (``TwoWords``, ``two_words``) are rewritten, and
in the module itself names in backticks and the entries of ``Args:``. What is left of a class's old name is printed.
Afterwards run ``ruff check --fix`` and ``ruff format`` for the order of imports and the length of lines.

The proof compares the syntax tree of every Python file with that at a revision. Put aside are the names of the mapping,
docstrings (listed apart, as notes) and the order within a block of imports, which ruff sorts. Then every identifier is
resolved before and after: two that meant the same thing still do, and two that meant different things still do, so that
no name has captured another one. ``--tests`` collects the tests of both and maps their ids one to one. Comments and files
that are not Python are not compared. The exit code is 1 where anything differs.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import unified_diff
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from scripts.identifiers import Use, module_of, path_of, uses

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDERS: Final = ("src", "tests", "scripts", "benchmarks", "dashboards", "examples")
TEXTS: Final = (".py", ".md", ".toml", ".yaml", ".yml", ".jinja", "Makefile", "run")
MOST_LINES: Final = 12
"""Of the differences of one file that are shown."""

RECORDS: Final = ("changelog.d/", "docs/decisions/", "CHANGELOG.md")
"""Records of the past, in which only paths and dotted names are rewritten."""

_DISTINCTIVE: Final = re.compile(r"[A-Z].*[a-z].*[A-Z]|[A-Za-z]_[A-Za-z]")


class RenameError(Exception):
    """The mapping cannot be applied."""


@dataclass(frozen=True)
class Plan:
    """A mapping, see the module's description."""

    modules: Mapping[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    members: Mapping[str, list[str]] = field(default_factory=dict)
    locals: dict[str, str] = field(default_factory=dict)
    everywhere: dict[str, str] = field(default_factory=dict)
    strings: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    kept: Sequence[str] = ()

    @staticmethod
    def read(path: Path) -> "Plan":
        """Return the plan in a file."""
        plan = Plan(**tomllib.loads(path.read_text(encoding="utf-8")))
        for name in plan.names:
            if not re.fullmatch(r"[\w.]+:\w+(\.\w+)?", name):
                raise RenameError(
                    f"[names] {name!r} is not of the form package.module:name or package.module:Class.member"
                )
        return plan

    def module(self, name: str) -> str:
        """Return a module's new name."""
        return self.modules.get(name, name)

    def files(self) -> dict[str, str]:
        """Return the new paths of the files that move, by their old ones."""
        return {
            path_of(old): path_of(new)
            for old, new in self.modules.items()
            if old not in self.packages or self.packages[old] != new
        }

    def expanded(self, files: Iterable[str]) -> "Plan":
        """Return the plan with every Python module of its packages among the modules."""
        if not self.packages:
            return self
        modules = dict(self.packages)
        for path in files:
            module = module_of(path) + (".__init__" if path.endswith("/__init__.py") else "")
            for old, new in self.packages.items():
                if module.startswith(f"{old}."):
                    modules[module] = new + module.removeprefix(old)
        return replace(self, modules=modules | dict(self.modules))

    def renamed(self, use: Use, path: str) -> str:
        """Return the identifier that takes the place of one in a file."""
        if use.slot != "asname" and (moved := self.modules.get(use.target.replace(":", "."))):
            return moved.rpartition(".")[2] if use.target.endswith(f":{use.name}") else use.name
        if use.target in self.names and use.target.endswith(f":{use.name}"):
            return self.names[use.target]
        if use.target.startswith("."):
            for name, new in self.names.items():
                owner, _, member = name.partition(":")[2].partition(".")
                if member == use.name and (
                    use.owner == f"{name.partition(':')[0]}:{owner}" or self._has(name, use, path)
                ):
                    return new
        if use.target.count(":") > 1 or use.keyword:  # a variable, or the argument of a function that is called by name
            module = (use.owner if use.keyword else use.target).partition(":")[0]
            if (local := self.locals.get(f"{module}:{use.name}")) is not None:
                return local
        return self.everywhere.get(use.name, use.name)

    def _has(self, name: str, use: Use, path: str) -> bool:
        if use.owner or use.keyword:  # a class is known, and it is another one
            return False
        globs = self.members.get(name)
        return globs is None or any(fnmatch(path, each) for each in globs)

    def _moved(self, text: str) -> str:
        """Return text with dotted names and paths of modules replaced, in one pass: a new name can begin with an old one."""
        instead: dict[str, str] = {}
        for old, new in self.modules.items():
            before, after = (each.removeprefix("src/").removesuffix(".py") for each in (path_of(old), path_of(new)))
            short, shorter = before.removeprefix("nissa/"), after.removeprefix("nissa/")
            instead |= {old: new, f"{before}.py": f"{after}.py"}
            instead |= {f"{short}.py": f"{shorter}.py"} if "/" in short else {}
            instead |= {before: after} if old in self.packages else {}
        # Longest first, because the name of a package is a prefix of those of its modules.
        names = "|".join(re.escape(each) for each in sorted(instead, key=len, reverse=True))
        return re.sub(rf"(?<![\w.])(?:{names})(?!\w)", lambda found: instead[found[0]], text) if names else text

    def text(self, text: str, module: str = "") -> str:
        """Return prose, a dotted name or a path with the old names replaced; in a module its own names in backticks too."""
        if self.kept:
            parts = re.split("(" + "|".join(rf"(?<![\w.]){re.escape(each)}(?!\w)" for each in self.kept) + ")", text)
            plan = replace(self, kept=())
            return "".join(part if part in self.kept else plan.text(part, module) for part in parts)
        for name, new in (self.names | self.locals | self.everywhere).items():
            if module and (name.startswith(f"{module}:") or ":" not in name):
                old = name.partition(":")[2].rpartition(".")[2] or name
                text = re.sub(rf"`{old}(?=[`.])", f"`{new}", text)
                text = re.sub(rf"^(\s+){old}: (?=[A-Z`]\S* \w)", rf"\g<1>{new}: ", text, flags=re.MULTILINE)
        text = self._moved(text)
        # Members first, because their class is looked up by its old name.
        for name, new in sorted(self.names.items(), key=lambda each: "." not in each[0].partition(":")[2]):
            module, _, old = name.partition(":")
            base = self.module(module)
            owner, _, member = old.rpartition(".")
            now = f"{self.names.get(f'{module}:{owner}', owner)}.{new}" if owner else new
            text = re.sub(rf"(?<![\w.]){re.escape(base)}([.:]){re.escape(old)}(?!\w)", rf"{base}\g<1>{now}", text)
            for whole, instead in ((old, now), (member, new)):
                if _DISTINCTIVE.search(whole):
                    text = re.sub(rf"(?<!\w){re.escape(whole)}(?!\w)", instead, text)
        return text


def sources(root: Path = ROOT) -> dict[str, str]:
    """Return the Python files that git knows below a folder."""
    listed = _git("ls-files", *FOLDERS, "conftest.py", root=root).split()
    return {path: (root / path).read_text(encoding="utf-8") for path in listed if path.endswith(".py")}


def check(plan: Plan, found: Mapping[str, tuple[ast.Module, list[Use]]]) -> None:
    """Refuse names that do not exist, and members whose name more than one class has."""
    defined = {use.target for _, each in found.values() for use in each} | set(found)
    for module in plan.modules:
        if path_of(module) not in found and module not in plan.packages:
            raise RenameError(f"[modules] There is no {path_of(module)}.")
    for name in plan.names:
        module, _, old = name.partition(":")
        owner, _, member = old.rpartition(".")
        if not owner:
            if name not in defined:
                raise RenameError(f"[names] {module} has no {old}.")
            continue
        owners = {use.owner for _, each in found.values() for use in each if use.name == member and _defines(use)}
        if f"{module}:{owner}" not in owners:
            raise RenameError(f"[names] The class {owner} of {module} defines no {member}.")
        if len(owners) > 1 and name not in plan.members:
            others = ", ".join(sorted(owners - {f"{module}:{owner}"}))
            raise RenameError(
                f"[members] {member!r} is a member of {others} too; list the files that use that of {owner}."
            )


def _defines(use: Use) -> bool:
    stored = isinstance(use.node, ast.Attribute | ast.Name) and isinstance(use.node.ctx, ast.Store)
    return bool(use.owner) and (stored or isinstance(use.node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef))


def rewritten(text: str, edits: Iterable[tuple[Use, str]]) -> str:
    """Return a file with identifiers replaced where they stand."""
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    for (row, column), (old, new) in sorted(
        {_place(use, lines): (use.name, new) for use, new in edits}.items(), reverse=True
    ):
        line = lines[row]
        assert line[column : column + len(old)] == old.encode(), (row, column, old)  # noqa: S101 - else nothing is to be written
        lines[row] = line[:column] + new.encode() + line[column + len(old) :]
    return b"".join(lines).decode()


def _place(use: Use, lines: list[bytes]) -> tuple[int, int]:
    """Return line and column of an identifier, from 0."""
    node, name = use.node, use.name.encode()
    row, column = node.lineno - 1, node.col_offset  # type: ignore[attr-defined]
    if isinstance(node, ast.Attribute | ast.MatchAs) or use.slot == "asname":
        return node.end_lineno - 1, node.end_col_offset - len(name)  # type: ignore[attr-defined]
    if isinstance(node, ast.Name | ast.arg | ast.keyword | ast.alias):
        return row, column
    if isinstance(node, ast.ExceptHandler) and node.type is not None:
        row, column = (node.type.end_lineno or 1) - 1, node.type.end_col_offset or 0
    found = re.compile(rb"(?<!\w)" + name + rb"(?!\w)").search(lines[row], column)
    assert found is not None, (row, name)  # noqa: S101 - the tree says that it is there
    return row, found.start()


def apply(plan: Plan, root: Path = ROOT) -> list[str]:
    """Rewrite and move files; return the new paths of those that changed."""
    texts = sources(root)
    plan = plan.expanded(texts)
    found = uses(texts)
    check(plan, found)
    changed: list[str] = []
    for path, (_, each) in found.items():
        edits = [(use, new) for use in each if (new := plan.renamed(use, path)) != use.name]
        text = plan.text(_literals(rewritten(texts[path], edits), plan.strings), module_of(path))
        changed += _write(root, path, texts[path], text)
    for path in _git("ls-files", root=root).splitlines():
        if path.endswith(TEXTS) and path not in texts:
            text = (root / path).read_text(encoding="utf-8")
            plain = (
                Plan(modules=plan.modules, packages=plan.packages, kept=plan.kept) if path.startswith(RECORDS) else plan
            )
            new = plain.text(text)
            changed += _write(root, path, text, _layers(new, plan) if path == "pyproject.toml" else new)
    for old, new in (plan.files() | _data(plan, root)).items():
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        _git("mv", old, new, root=root)
    return sorted({plan.files().get(path, path) for path in changed} | set(plan.files().values()))


def _data(plan: Plan, root: Path) -> dict[str, str]:
    """Return the new paths of the non-Python files in moved packages."""
    folders = {
        path_of(old).removesuffix(".py") + "/": path_of(new).removesuffix(".py") + "/"
        for old, new in plan.packages.items()
    }
    paths = [path for path in _git("ls-files", root=root).splitlines() if not path.endswith(".py")]
    return {
        path: new + path.removeprefix(old) for path in paths for old, new in folders.items() if path.startswith(old)
    }


def _literals(text: str, strings: Mapping[str, str]) -> str:
    for old, new in strings.items():
        text = re.sub(rf"(?<=[\"']){re.escape(old)}(?=[\"'])", new, text)
    return text


def _layers(text: str, plan: Plan) -> str:
    """Return pyproject.toml with the layers of import-linter under their new names."""
    head, start, rest = text.partition("layers = [")
    layers, end, tail = rest.partition("]")
    for old, new in plan.modules.items():
        if old.count(".") == 1:
            layers = re.sub(rf"\b{re.escape(old.partition('.')[2])}\b", new.partition(".")[2], layers)
    return head + start + layers + end + tail


def _write(root: Path, path: str, before: str, after: str) -> Iterator[str]:
    if after != before:
        (root / path).write_text(after, encoding="utf-8")
        yield path


def _git(*words: str, root: Path = ROOT) -> str:
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout  # noqa: S603, S607


def left(plan: Plan, root: Path = ROOT) -> list[str]:
    """Return the lines that still contain the old name of a class, for manual review."""
    old = [name.partition(":")[2] for name in plan.names]
    words = [word for word in old if word[:1].isupper() and "." not in word]
    command = ["git", "grep", "-nwE", "|".join(words)]
    found = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)  # noqa: S603
    return found.stdout.splitlines() if words else []


def _only_describes(path: str, tree: ast.Module) -> bool:
    """Whether a file is the ``__init__.py`` of a new package and has nothing but a docstring."""
    return path.endswith("/__init__.py") and ast.get_docstring(tree) is not None and len(tree.body) == 1


def prove(before: Mapping[str, str], after: Mapping[str, str], plan: Plan) -> list[str]:
    """Return the differences besides names as text; empty if the mapping explains everything."""
    plan = plan.expanded(before)
    old, new, files = uses(before), uses(after), plan.files()
    try:
        check(plan, old)
    except RenameError as error:
        return [str(error)]
    created = set(new) - {files.get(path, path) for path in old}
    found = [f"{path}: is new" for path in sorted(created) if not _only_describes(path, new[path][0])]
    meanings: dict[str, set[str]] = {}
    for path, (tree, identifiers) in sorted(old.items()):
        if (there := files.get(path, path)) not in new:
            found.append(f"{there}: is missing")
            continue
        originals = [(use, use.target) for use in identifiers]
        for use in identifiers:
            _remember(use)
        for use, _ in originals:
            use.put(plan.renamed(use, path))
        found += _compared(there, tree, new[there][0], plan)
        for use in new[there][1]:
            _remember(use)
        for one, other in zip(_meant(tree), _meant(new[there][0]), strict=False):
            meanings.setdefault(one, set()).add(other)
    return found + _captured(meanings)


def _remember(use: Use) -> None:
    """Store the meaning of its identifier at a node: the class of a member if known, else its name."""
    local = use.target.count(":") > 1
    known = getattr(use.node, "meant", {})
    known[use.slot, use.index] = re.sub(r":(/\d+)*:", r":\1:", use.target) if local else use.target
    use.node.meant = known  # type: ignore[attr-defined]


def _meant(tree: ast.AST) -> Iterator[str]:
    for node in _walk(tree):
        for _, target in sorted(getattr(node, "meant", {}).items(), key=lambda each: str(each[0])):
            if not target.startswith((".", "builtin:.")):
                yield target


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


def _captured(meanings: Mapping[str, set[str]]) -> list[str]:
    """Return the identifiers whose meanings were split or joined."""
    found = [f"{one} means {' and '.join(sorted(others))} now" for one, others in meanings.items() if len(others) > 1]
    back: dict[str, set[str]] = {}
    for one, others in meanings.items():
        for other in others:
            back.setdefault(other, set()).add(one)
    return found + [
        f"{other} stands for {' and '.join(sorted(ones))} now" for other, ones in back.items() if len(ones) > 1
    ]


def _compared(path: str, before: ast.Module, after: ast.Module, plan: Plan) -> list[str]:
    one, other = _normalised(before, plan), _normalised(after, Plan())
    if one == other:
        return []
    lines = list(
        unified_diff(one.splitlines(), other.splitlines(), "before, with names mapped", "after", lineterm="", n=1)
    )
    more = [f"... {len(lines) - MOST_LINES} lines more"] if len(lines) > MOST_LINES else []
    return ["\n    ".join([f"{path} differs:", *lines[:MOST_LINES], *more])]


def _normalised(tree: ast.Module, plan: Plan) -> str:
    """Return a tree as text, a line for each node; imports are sorted and docstrings left out."""
    for node in _walk(tree):
        for name in ("body", "orelse", "finalbody"):
            if isinstance(body := getattr(node, name, None), list):
                setattr(node, name, _sorted(_without_docstring(node, body), plan))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = plan.strings.get(node.value, _dotted(node.value, plan))
    return ast.dump(tree, indent=1)


def _dotted(text: str, plan: Plan) -> str:
    """Return a literal with the dotted names and paths of modules replaced: those are what the mapping lists."""
    return (
        Plan(modules=plan.modules, packages=plan.packages, kept=plan.kept).text(text)
        if any(old.rpartition(".")[2] in text for old in plan.modules)
        else text
    )


def _without_docstring(node: ast.AST, body: list[Any]) -> list[Any]:
    first = body[0] if body else None
    documented = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    if documented and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [ast.Pass(), *body[1:]]
    return body


def _sorted(body: list[Any], plan: Plan) -> list[Any]:
    """Return statements with each run of imports sorted, and split into one statement per name."""
    done: list[Any] = []
    block: list[Any] = []
    for each in [*body, None]:
        if isinstance(each, ast.Import):
            block += [ast.Import([_moved(alias, plan)]) for alias in each.names]
        elif isinstance(each, ast.ImportFrom):
            source = each.module and plan.module(each.module)
            block += [ast.ImportFrom(source, [alias], each.level) for alias in each.names]
        else:
            done += sorted(block, key=ast.dump)
            block = []
            done += [] if each is None else [each]
    return done


def _moved(alias: ast.alias, plan: Plan) -> ast.alias:
    alias.name = plan.module(alias.name)
    return alias


def docstrings(before: Mapping[str, str], after: Mapping[str, str], plan: Plan) -> list[str]:
    """Return the places whose docstrings differ by more than names."""
    found = []
    for path, text in before.items():
        there = plan.files().get(path, path)
        if there in after:
            one, other = (Counter(_docstrings(each)) for each in (plan.text(text, module_of(path)), after[there]))
            found += [f"{there}: {text.splitlines()[0]!r}" for text in (one - other)]
    return found


def _docstrings(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield " ".join((ast.get_docstring(node) or "none").split())


def changed_tests(before: Path, after: Path, plan: Plan) -> list[str]:
    """Return the ids of tests that vanished or appeared, but for names; lines within documents do not count."""
    one, other = (
        Counter(_mapped(each, plan) for each in _collected(before)),
        Counter(_mapped(each, Plan()) for each in _collected(after)),
    )
    gone, come = sorted((one - other).elements()), sorted((other - one).elements())
    return [f"test is gone: {each}" for each in gone] + [f"test is new: {each}" for each in come]


def _mapped(test: str, plan: Plan) -> str:
    path, colons, name = test.partition("::")
    name = re.sub(r"line:\d+(,column:\d+)?", "example", name)
    return plan.files().get(path, path) + colons + plan.text(name)


def _collected(root: Path) -> list[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    source = {"PYTHONPATH": str(root / "src")}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=os.environ | source)  # noqa: S603
    found = [line for line in done.stdout.splitlines() if "::" in line and not line.startswith(("ERROR", " "))]
    if done.returncode or not found:
        raise SystemExit(f"pytest cannot collect the tests of {root}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found


def compare(revision: str, plan: Plan, *, collect: bool) -> int:
    """Compare the working tree with a revision, print the differences, and return the exit code."""
    with TemporaryDirectory() as folder:
        there = Path(folder) / "before"
        _git("worktree", "add", "--detach", str(there), revision)
        try:
            before, after = sources(there), sources()
            plan = plan.expanded(before)
            found = prove(before, after, plan)
            found += changed_tests(there, ROOT, plan) if collect else []
        finally:
            _git("worktree", "remove", "--force", str(there))
    notes = docstrings(before, after, plan)
    _show([*found, *(f"note: a docstring differs: {each}" for each in notes)])
    _show([f"{len(before)} files; {len(found)} differences; {len(notes)} docstrings differ by more than names"])
    return int(bool(found))


def main(command: str, *words: str) -> int:
    """Apply a mapping, or prove that nothing else has changed."""
    if command == "apply":
        plan = Plan.read(Path(words[0]))
        _show([*apply(plan), *(f"left: {each}" for each in left(plan))])
        return 0
    return compare(words[0], Plan.read(Path(words[1])), collect="--tests" in words)


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)  # noqa: T201 - what a script is for


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except RenameError as error:
        sys.exit(str(error))
