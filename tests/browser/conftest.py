"""Reports in a real browser, with no network: every request but that for the page itself is refused and remembered."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, Route, sync_playwright

from nissa.report import write_report
from scripts.browser import NAMES
from tests.recorded import HOSTILE, Recorded


@dataclass
class Opened:
    """A report in a tab, and what must not happen there."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def x_range(self, figure: str) -> tuple[str, str]:
        """Return from where to where a figure's x axis goes."""
        low, high = self.page.evaluate(f"document.querySelector('[data-plot={figure}]').layout.xaxis.range.map(String)")
        return low, high

    def box(self, figure: str) -> dict[str, float]:
        """Return where a figure's axes are on the screen, after scrolling there."""
        area = self.page.locator(f"[data-plot={figure}] .nsewdrag").first
        area.scroll_into_view_if_needed()
        found = area.bounding_box()
        assert found is not None
        return {"x": found["x"], "y": found["y"], "width": found["width"], "height": found["height"]}


Open = Callable[..., Opened]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip("there is no Chromium: python -m scripts.browser says how to get one")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the reports of a run, of one that was killed, and of one whose names are hostile."""
    runs = {"whole": Recorded(), "killed": Recorded(ended=False), "hostile": Recorded(mark=HOSTILE)}
    folders = {name: run.write(tmp_path_factory.mktemp(name)) for name, run in runs.items()}
    return {name: Path(write_report(folder).path) for name, folder in folders.items()}


@pytest.fixture
def opened(browser: Browser, pages: dict[str, Path]) -> Iterator[Open]:
    """Open a report; when the test is over nothing may have been complained of or asked for."""
    tabs: list[Opened] = []

    def open_page(name: str = "whole", **settings: Any) -> Opened:
        tabs.append(_open(browser, pages[name], **settings))
        return tabs[-1]

    yield open_page
    for tab in tabs:
        _close(tab)


@pytest.fixture(scope="session")
def shown(browser: Browser, pages: dict[str, Path]) -> Iterator[Opened]:
    """Return a report that tests share: they look at it, point at it, and change nothing."""
    tab = _open(browser, pages["whole"])
    yield tab
    _close(tab)


def _open(browser: Browser, page: Path, **settings: Any) -> Opened:
    settings = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"} | settings
    tab = Opened(browser.new_page(**settings))
    _watch(tab, page)
    tab.page.goto(page.as_uri())
    tab.page.wait_for_selector("html[data-drawn]")
    return tab


def _close(tab: Opened) -> None:
    tab.page.close()
    assert tab.complaints == []
    assert tab.requests == []


def _watch(tab: Opened, page: Path) -> None:
    def refuse(route: Route, request: Request) -> None:
        if request.url.partition("#")[0] == page.as_uri():
            route.continue_()
        else:
            tab.requests.append(request.url)
            route.abort()

    tab.page.route("**/*", refuse)
    tab.page.on("console", lambda said: tab.complaints.append(f"{said.type}: {said.text}"))
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
