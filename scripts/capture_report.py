"""Take the screenshots of the README: the report of a demo run in light and dark mode."""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console

from nissa.demo.app import run_demo
from scripts.browser import NAMES

WIDTH, HEIGHT = 1280, 900
UNTIL = "#speed"
"""Last element in the picture."""

BELOW = 24


def main(folder: Path, page: Path | None = None) -> None:
    """Write ``report-light.png`` and ``report-dark.png``; run the demo first if no report was passed."""
    with tempfile.TemporaryDirectory() as scratch:
        shown = page or Path(str(run_demo(directory=scratch, console=Console(quiet=True)).page))
        for scheme in ("light", "dark"):
            _picture(shown.resolve(), scheme, folder / f"report-{scheme}.png")


def _picture(page: Path, scheme: str, path: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, NAMES))), args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)  # type: ignore[arg-type]
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-drawn]")
        end = int(tab.evaluate(f"document.querySelector('{UNTIL}').getBoundingClientRect().bottom + scrollY")) + BELOW
        tab.screenshot(path=path, clip={"x": 0, "y": 0, "width": WIDTH, "height": end}, full_page=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(Path(each) for each in sys.argv[2:]))
