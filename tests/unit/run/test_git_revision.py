"""The commit of a repository, compared with what git says."""

import subprocess
from pathlib import Path

import pytest

from nissa.run.git_revision import GitRevision, revision_of


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "src" / "deep").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "topic/one")
    (folder / "file").write_text("1")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def expected(folder: Path) -> GitRevision:
    branch = git(folder, "rev-parse", "--abbrev-ref", "HEAD")
    return GitRevision(git(folder, "rev-parse", "HEAD"), None if branch == "HEAD" else branch)


def test_a_branch(repository: Path) -> None:
    assert revision_of(repository / "src" / "deep") == expected(repository)
    assert expected(repository).reference == "topic/one"


def test_a_packed_branch_and_a_newer_commit_of_it(repository: Path) -> None:
    git(repository, "pack-refs", "--all")
    assert revision_of(repository) == expected(repository)
    git(repository, "commit", "-q", "--allow-empty", "-m", "two")
    assert revision_of(repository) == expected(repository)


def test_a_commit_without_a_branch(repository: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    assert revision_of(repository) == expected(repository)


@pytest.mark.parametrize("packed", [False, True])
def test_a_worktree(repository: Path, tmp_path: Path, packed: bool) -> None:
    git(repository, "worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
    git(tmp_path / "tree", "commit", "-q", "--allow-empty", "-m", "two")
    if packed:
        git(repository, "pack-refs", "--all")
    assert revision_of(tmp_path / "tree") == expected(tmp_path / "tree") != expected(repository)


def test_a_repository_without_a_commit_and_no_repository(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    git(tmp_path / "new", "init", "-q")
    assert revision_of(tmp_path / "new") is None
    assert revision_of(Path("/proc/self")) is None
