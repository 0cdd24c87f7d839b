from pathlib import Path

import pytest

from scripts.changelog import fragments, main, merged
from tests.support import ROOT

HEAD = "# Changelog\n\nText.\n"


def test_a_section_is_created_above_the_last_one() -> None:
    before = f"{HEAD}\n## 0.1.0 (2026-01-01)\n\n### Fixed\n\n- Old.\n"
    assert merged(before, "0.2.0", [("fixed", "Mended.\nIt works.\n"), ("added", "New.")]) == (
        f"{HEAD}\n## 0.2.0 (unreleased)\n\n### Added\n\n- New.\n\n### Fixed\n\n- Mended.\n  It works.\n\n"
        "## 0.1.0 (2026-01-01)\n\n### Fixed\n\n- Old.\n"
    )


def test_entries_go_below_the_heading_of_their_category() -> None:
    before = (
        f"{HEAD}\n## 0.2.0 (unreleased)\n\nHighlights.\n\n### Added\n\n#### Here\n\n- One.\n\n### Fixed\n\n- Two.\n"
    )
    assert merged(before, "0.2.0", [("added", "New."), ("changed", "Other."), ("fixed", "Mended.")]) == (
        f"{HEAD}\n## 0.2.0 (unreleased)\n\nHighlights.\n\n### Added\n\n- New.\n\n#### Here\n\n- One.\n\n"
        "### Changed\n\n- Other.\n\n### Fixed\n\n- Mended.\n- Two.\n"
    )
    assert merged(before, "0.2.0", []) == before
    assert merged(HEAD, "0.2.0", [("added", "New.")]) == f"{HEAD}\n## 0.2.0 (unreleased)\n\n### Added\n\n- New.\n"


def test_a_released_version_gets_no_further_entries() -> None:
    with pytest.raises(ValueError, match=r"raise the version in pyproject\.toml first"):
        merged(f"{HEAD}\n## 0.2.0 (2026-12-01)\n", "0.2.0", [("added", "New.")])


def test_fragments_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "one.fixed.md").write_text("Mended.")
    (tmp_path / "another.added.md").write_text("New.")
    assert [(path.name, category) for path, category in fragments(tmp_path).items()] == [
        ("another.added.md", "added"),
        ("one.fixed.md", "fixed"),
    ]
    (tmp_path / "empty.added.md").write_text("\n")
    (tmp_path / "thing.removed.md").write_text("Gone.")
    with pytest.raises(ValueError, match=r"empty\.added\.md, thing\.removed\.md"):
        fragments(tmp_path)


def test_the_fragments_of_this_checkout_can_be_merged(capsys: pytest.CaptureFixture[str]) -> None:
    before = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert main(["--check"]) == 0, capsys.readouterr().err
    assert (ROOT / "CHANGELOG.md").read_text(encoding="utf-8") == before
