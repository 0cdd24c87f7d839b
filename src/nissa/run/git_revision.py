"""Commit of the git repository that a file is in, read from its files: no subprocess, and no change to it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MOST_BYTES: Final = 16 << 20
"""Limit of ``packed-refs``, which has a line for each reference."""
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class GitRevision:
    """Commit that is checked out.

    Args:
        commit: Hash of the commit.
        reference: Branch, such as ``main``; None where no branch is checked out.
    """

    commit: str
    reference: str | None


def revision_of(folder: Path) -> GitRevision | None:
    """Return the commit of the repository that a folder belongs to; None without a repository or a commit.

    Worktrees, submodules and packed references are understood.

    Raises:
        OSError: A file of the repository cannot be read.
    """
    repository = next(_repositories(folder), None)
    if repository is None:
        return None
    head = _read(repository / "HEAD")
    if not head.startswith("ref: "):
        return GitRevision(head, None) if _COMMIT.fullmatch(head) else None
    name = head.removeprefix("ref: ")
    commit = next(_commits(repository, name), None)
    return None if commit is None else GitRevision(commit, name.removeprefix("refs/heads/"))


def _repositories(folder: Path) -> Iterator[Path]:
    """Yield the git directories of a folder and of those above it."""
    for above in (folder, *folder.parents):
        path = above / ".git"
        if path.is_dir():
            yield path
        elif path.is_file():  # a worktree or submodule
            yield above / _read(path).removeprefix("gitdir: ")


def _commits(repository: Path, name: str) -> Iterator[str]:
    """Yield the commit of a reference: that of a loose file first, which is newer than a packed one."""
    common = repository / "commondir"
    shared = repository / _read(common) if common.is_file() else repository
    for place in dict.fromkeys((repository, shared)):
        path = place / name
        if path.is_file() and _COMMIT.fullmatch(text := _read(path)):
            yield text
    packed = shared / "packed-refs"
    if packed.is_file():
        lines = (line.split(" ", 1) for line in _read(packed).splitlines())
        yield from (words[0] for words in lines if len(words) > 1 and words[1] == name and _COMMIT.fullmatch(words[0]))


def _read(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_MOST_BYTES).strip()
