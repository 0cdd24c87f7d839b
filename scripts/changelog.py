"""Add the fragments in ``changelog.d/`` to the section of the project's version in ``CHANGELOG.md``, and remove them.

``python -m scripts.changelog`` creates the section if it is missing. Fragments are called ``<what>.<added|changed|fixed>.md``. They go
below the headings ``### Added``, ``### Changed`` and ``### Fixed``, from where an editor moves them into a group. With ``--check`` nothing is
written, and the exit status is 1 for a fragment whose name or content cannot be used.
"""

import re
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
CATEGORIES: Final = ("added", "changed", "fixed")
UNRELEASED: Final = "unreleased"

_NAME: Final = re.compile(rf"[a-z0-9-]+\.({'|'.join(CATEGORIES)})\.md")
_SECTION: Final = re.compile(r"^## ", re.MULTILINE)


def fragments(folder: Path) -> dict[Path, str]:
    """Return the category of each fragment, by its path, sorted by name.

    Raises:
        ValueError: A fragment is empty, or not called ``<what>.<category>.md``; the message names all of them.
    """
    found, problems = {}, []
    for path in sorted(set(folder.glob("*")) - {folder / "README.md"}):
        named = _NAME.fullmatch(path.name)
        if named is None or not path.read_text(encoding="utf-8").strip():
            problems.append(path.name)
        else:
            found[path] = named[1]
    if problems:
        raise ValueError(
            f"These fragments cannot be used: {', '.join(problems)}. Call them <what>.<{'|'.join(CATEGORIES)}>.md, in lower case, "
            "and write at least a sentence."
        )
    return found


def merged(changelog: str, version: str, entries: Iterable[tuple[str, str]]) -> str:
    """Return a changelog with entries added to the section of a version.

    Args:
        changelog: The text so far.
        version: Version of the section, which is created above all others if it is missing.
        entries: Category and text of each.

    Raises:
        ValueError: The version is released: its section has a date.
    """
    heading = re.search(rf"^## {re.escape(version)} \((.+)\)\n", changelog, re.MULTILINE)
    if heading is None:
        first = _SECTION.search(changelog)
        at = len(changelog) if first is None else first.start()
        changelog = f"{changelog[:at].rstrip()}\n\n## {version} ({UNRELEASED})\n\n{changelog[at:]}"
        return merged(changelog, version, entries)
    if heading[1] != UNRELEASED:
        raise ValueError(f"{version} was released on {heading[1]}; raise the version in pyproject.toml first.")
    following = _SECTION.search(changelog, heading.end())
    end = len(changelog) if following is None else following.start()
    section = changelog[heading.end() : end]
    for category, text in entries:
        section = _with_entry(section, category.capitalize(), text)
    rest = f"\n{changelog[end:]}" if changelog[end:] else ""
    return f"{changelog[: heading.end()]}\n{section.strip()}\n{rest}"


def _with_entry(section: str, title: str, text: str) -> str:
    if f"### {title}\n" not in section:
        later = [f"### {each.capitalize()}\n" for each in CATEGORIES[CATEGORIES.index(title.lower()) + 1 :]]
        at = min((section.index(each) for each in later if each in section), default=len(section))
        section = f"{section[:at].rstrip()}\n\n### {title}\n\n{section[at:]}"
    at = section.index(f"### {title}\n") + len(f"### {title}\n\n")
    entry = f"- {textwrap.indent(text.strip(), '  ')[2:]}\n"
    gap = "\n" if section[at:].startswith("#") else ""
    return f"{section[:at]}{entry}{gap}{section[at:]}"


def main(arguments: Sequence[str]) -> int:
    """Merge the fragments; return the exit status."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    path = ROOT / "CHANGELOG.md"
    try:
        found = fragments(ROOT / "changelog.d")
        entries = [(category, each.read_text(encoding="utf-8")) for each, category in reversed(found.items())]
        text = merged(path.read_text(encoding="utf-8"), version, entries)
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command
        return 1
    if "--check" not in arguments:
        path.write_text(text, encoding="utf-8")
        for each in found:
            each.unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
