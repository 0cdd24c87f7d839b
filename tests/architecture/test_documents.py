"""What the documents tell people to type exists; Python blocks are run as they stand, by the conftest above."""

import re
from pathlib import Path

import pytest

from scripts.generate import ROOT

_DOCUMENTS = ["README.md", "CONTRIBUTING.md"]


@pytest.mark.parametrize("name", _DOCUMENTS)
def test_every_make_target_in_a_document_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / name).read_text(), flags=re.MULTILINE))
    assert named
    assert named <= targets


@pytest.mark.parametrize("name", _DOCUMENTS)
def test_every_file_that_a_document_links_to_exists(name: str) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / name).read_text())
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_readme_and_the_guide_fit_on_a_screen_or_so() -> None:
    for name in _DOCUMENTS:
        assert len((ROOT / name).read_text().splitlines()) <= 80, name


def test_the_readme_installs_first_and_then_needs_no_change_to_a_script() -> None:
    blocks = re.findall(
        r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert "pip install" in blocks[0]
    assert blocks[1] == "nissa run train.py\n"


def test_nothing_committed_speaks_of_a_machine() -> None:
    pattern = re.compile("/" + "(?:work|root)/|/tmp/" + "[a-z]+/")
    for path in ROOT.rglob("*.md"):
        if ".venv" not in path.parts and "nissa-runs" not in path.parts:
            assert not pattern.search(path.read_text()), Path(path).relative_to(ROOT)


def test_the_index_has_every_decision_with_its_title() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = sorted(folder.glob("0*.md"))
    titles = {page.name: page.read_text().partition("\n")[0].removeprefix("# ") for page in pages}
    lines = [f"- [{name[:4]}]({name}): {title}" for name, title in titles.items()]
    index = (folder / "README.md").read_text().splitlines()
    assert [line for line in index if line.startswith("- [")] == lines


def test_links_between_pages_lead_to_files() -> None:
    for page in (*(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.md")):
        for link in re.findall(r"(?<!\")\]\((?!http|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / link).exists(), (page.relative_to(ROOT), link)
