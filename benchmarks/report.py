"""Time to open a report in headless Chromium: from navigation until the visible figures, and all figures, are drawn.

For comparison, a page with only plotly.js and one line is measured alternately in the same browser; no plotly page can be
faster. Run it on an idle machine: ``python -m benchmarks.report``.
"""

import csv
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright
from plotly.offline import get_plotlyjs

from benchmarks.facts import commit, processor
from nissa.report import write_report
from scripts.browser import NAMES
from tests.recorded import Recorded

RESULTS: Final = Path(__file__).parent / "results" / "report.csv"
RUN: Final = Recorded(steps=2_500, parameters=32, sampled=12)
"""Two environments; a point for each step of the loss, the rate and the health, and all gradients at some steps."""

ROUNDS: Final = 9
_MARK: Final = "(name) => performance.getEntriesByName(name)[0].startTime / 1000"
_EMPTY: Final = """<!DOCTYPE html><meta charset="utf-8"><div id="plot"></div><script>{plotly}</script><script>
Plotly.newPlot("plot", [{{y: [1, 2]}}]).then(() => {{
  performance.mark("drawn");
  document.documentElement.dataset.drawn = "1";
}});</script>"""


def main() -> None:
    """Measure, print and write the results."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = RUN.write(Path(scratch) / "run")
        written = write_report(folder)
        empty = Path(scratch) / "empty.html"
        empty.write_text(_EMPTY.format(plotly=get_plotlyjs()), encoding="utf-8")
        shown, drawn, least = _measure(Path(written.path), empty)
    row = {
        "points": written.points,
        "bytes": written.bytes,
        "first_view_seconds": f"{statistics.median(shown):.2f}",
        "seconds": f"{statistics.median(drawn):.2f}",
        "slowest": f"{max(drawn):.2f}",
        "empty_page_seconds": f"{statistics.median(least):.2f}",
        "ratio": f"{statistics.median(drawn) / statistics.median(least):.2f}",
        "rounds": ROUNDS,
        "machine": processor(),
        "browser": _version(),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    for name, value in row.items():
        print(f"{name:>20}  {value}")


def _measure(report: Path, empty: Path) -> tuple[list[float], list[float], list[float]]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_browser(), args=["--no-sandbox"])
        for page in (report, empty):  # the first time, files and the browser's own code are not in memory yet
            _open(browser, page, "drawn")
        rounds = [(*_open(browser, report, "shown", "drawn"), *_open(browser, empty, "drawn")) for _ in range(ROUNDS)]
        browser.close()
    shown, drawn, least = (list(each) for each in zip(*rounds, strict=True))
    return shown, drawn, least


def _open(browser: Browser, page: Path, *marks: str) -> list[float]:
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-drawn]")
    seconds = [float(tab.evaluate(_MARK, mark)) for mark in marks]
    tab.close()
    return seconds


def _browser() -> str:
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        sys.exit("There is no Chromium: python -m scripts.browser")
    return found


def _version() -> str:
    return subprocess.run([_browser(), "--version"], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


if __name__ == "__main__":
    main()
