"""``python -m scripts.pictures``: run the servers and the demo, and write a picture of each board to ``docs/images``."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import sync_playwright

from scripts.pictures.answers import Moment
from scripts.pictures.page import write
from scripts.stack import Stack
from scripts.stack_settings import ROOT

IMAGES: Final = ROOT / "docs" / "images"
_WIDTH: Final = 1500
_SETTINGS: Final = {"COLLECTOR_SPAN_METRICS_INTERVAL": "1s", "COLLECTOR_OWN_METRICS_INTERVAL_MS": "2000"}
_SETTLING: Final = 30
"""Seconds until rules have been evaluated after the last point."""


def main(images: Path = IMAGES) -> None:
    """Write the pictures."""
    boards = [
        json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "dashboards" / "generated").glob("*.json"))
    ]
    with tempfile.TemporaryDirectory() as scratch:
        stack = Stack(Path(scratch), settings=_SETTINGS)
        stack.start()
        try:
            moment = _demonstrated(stack, Path(scratch))
            pages = {board["uid"]: write(board, moment, Path(scratch)) for board in boards}
        finally:
            stack.stop()
        for board in boards:
            _picture(pages[board["uid"]], images / f"board-{board['uid'].removeprefix('nissa-')}.png")


def _demonstrated(stack: Stack, folder: Path) -> Moment:
    sent = {"OTEL_EXPORTER_OTLP_ENDPOINT": stack.otlp_grpc, "OTEL_METRIC_EXPORT_INTERVAL": "5000"}
    exporters = {f"OTEL_{signal}_EXPORTER": "otlp" for signal in ("TRACES", "METRICS", "LOGS")}
    begin = time.time()
    done = subprocess.run(  # noqa: S603 - our own command
        [str(Path(sys.executable).parent / "nissa"), "demo", "--json"],
        cwd=folder,
        env=os.environ | sent | exporters,
        capture_output=True,
        text=True,
        check=True,
    )
    report: Any = json.loads(done.stdout)
    end = time.time()
    time.sleep(_SETTLING)
    return Moment(stack.prometheus, stack.jaeger, "nissa-demo", report["run_id"], begin, end)


def _picture(page: Path, path: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": _WIDTH, "height": 1000})
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-drawn]")
        tab.screenshot(path=path, full_page=True)
        browser.close()


if __name__ == "__main__":
    main(*(Path(each) for each in sys.argv[1:]))
