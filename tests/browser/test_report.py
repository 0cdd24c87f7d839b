"""The report as people use it: with a mouse, with a keyboard, by day and by night."""

import math
import re

import pytest

from nissa.charts.theme import DARK, LIGHT
from tests.browser.conftest import Open, Opened
from tests.recorded import HOSTILE

FIGURES = ("loss", "accuracy", "health", "rate", "swimlane", "heatmap", "distribution")


def rgb(colour: str) -> str:
    """Return ``#rrggbb`` as browsers tell it."""
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


def behind(tab: Opened) -> str:
    return str(tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))


def lines(tab: Opened) -> int:
    return tab.page.locator("[data-plot=loss] .scatterlayer .trace:has(.lines path)").count()


def test_everything_is_drawn(shown: Opened) -> None:
    for name in FIGURES:
        assert shown.page.locator(f"[data-plot={name}] svg.main-svg").count(), name
    assert lines(shown) == 6  # two of training, each with its moving average, and two of validation
    assert shown.page.locator("[data-plot=heatmap] .hm image").count() == 1
    assert shown.page.locator("[data-plot=swimlane] .barlayer .point").count() == 7
    assert shown.page.get_by_role("alert").count() == 0


def test_a_click_changes_the_axis_of_all_figures_to_steps_and_back(opened: Open) -> None:
    tab = opened()
    titles = tab.page.locator(".xtitle")
    assert set(titles.all_text_contents()) == {"time (UTC)"}
    tab.page.get_by_role("button", name="Step").click()
    tab.page.wait_for_function(
        "[...document.querySelectorAll('.xtitle')].every(t => t.textContent === 'optimizer step')"
    )
    for name in FIGURES:
        assert tab.x_range(name) == ("0", "59"), name
    assert tab.page.get_by_role("button", name="Step").get_attribute("aria-pressed") == "true"
    bars = tab.page.evaluate("document.querySelector('[data-plot=swimlane]').data.map(t => [t.name, t.base, t.x])")
    training = next(each for each in bars if each[0] == "training")
    assert training[1:] == [[6, 6], [24, 24]]
    tab.page.get_by_role("button", name="Time").click()
    tab.page.wait_for_function("[...document.querySelectorAll('.xtitle')].every(t => t.textContent === 'time (UTC)')")


def test_a_click_makes_it_dark_and_light_again(opened: Open) -> None:
    tab = opened()
    assert behind(tab) == rgb(LIGHT.page)
    label = tab.page.locator("[data-plot=loss] .xtick text").first
    for scheme in (DARK, LIGHT):
        tab.page.get_by_role("button", name="Dark").click()
        assert behind(tab) == rgb(scheme.page)
        muted = rgb(scheme.muted)
        tab.page.wait_for_function("([t, c]) => getComputedStyle(t).fill === c", arg=[label.element_handle(), muted])


@pytest.mark.full
def test_it_is_dark_where_the_system_is(opened: Open) -> None:
    tab = opened(color_scheme="dark")
    assert behind(tab) == rgb(DARK.page)
    assert tab.page.get_by_role("button", name="Dark").get_attribute("aria-pressed") == "true"


def test_dragging_zooms_all_figures_and_a_button_shows_the_whole_run_again(opened: Open) -> None:
    tab = opened()
    before = tab.x_range("loss")
    box = tab.box("loss")
    tab.page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] / 2, steps=5)
    tab.page.mouse.up()
    tab.page.wait_for_function(
        "(r) => String(document.querySelector('[data-plot=swimlane]').layout.xaxis.range[0]) !== r", arg=before[0]
    )
    assert tab.x_range("loss") != before
    assert {tab.x_range(name) for name in FIGURES} == {tab.x_range("loss")}
    tab.page.get_by_role("button", name="Whole run").click()
    tab.page.wait_for_function(
        "(r) => String(document.querySelector('[data-plot=loss]').layout.xaxis.range[0]) === r", arg=before[0]
    )


@pytest.mark.full
def test_a_double_click_shows_the_whole_run_again(opened: Open) -> None:
    tab = opened()
    before = tab.x_range("loss")
    tab.page.locator("[data-plot=loss]").focus()
    tab.page.keyboard.press("+")
    assert tab.x_range("loss") != before
    box = tab.box("loss")
    tab.page.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.page.wait_for_function(
        "(r) => String(document.querySelector('[data-plot=rate]').layout.xaxis.range[0]) === r", arg=before[0]
    )


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        ("loss", r"environment 0 · train : \d"),
        ("heatmap", r"block\.\d\.weight.*L2 norm \d"),
        ("swimlane", "blueprint conv, slot r0c0"),
    ],
)
def test_pointing_at_something_tells_its_value(shown: Opened, figure: str, said: str) -> None:
    box = shown.box(figure)
    down = 0.3 if figure == "swimlane" else 0.5
    shown.page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * down)
    shown.page.mouse.move(box["x"] + box["width"] * 0.4 + 2, box["y"] + box["height"] * down, steps=3)
    hover = shown.page.locator(f"[data-plot={figure}] .hoverlayer")
    hover.locator("text").first.wait_for()
    assert re.search(said, " ".join(hover.locator("text").all_text_contents()))


@pytest.mark.full
def test_a_click_in_the_legend_hides_a_line_and_another_shows_it(opened: Open) -> None:
    tab = opened()
    button = tab.page.locator("[data-legend=loss]").get_by_role("button", name="environment 1 · train", exact=True)
    button.click()
    tab.page.wait_for_function(
        "document.querySelectorAll('[data-plot=loss] .scatterlayer .trace:has(.lines path)').length === 4"
    )
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    tab.page.wait_for_function(
        "document.querySelectorAll('[data-plot=loss] .scatterlayer .trace:has(.lines path)').length === 6"
    )


def test_an_environment_can_be_looked_at_alone(opened: Open) -> None:
    tab = opened()
    tab.page.get_by_role("combobox", name="Environment").select_option("environment 1")
    tab.page.wait_for_function(
        "document.querySelectorAll('[data-plot=loss] .scatterlayer .trace:has(.lines path)').length === 3"
    )
    findings = tab.page.locator("#findings li.finding")
    assert [row.is_visible() for row in findings.all()] == [True, False]
    lanes = tab.page.locator("[data-plot=swimlane] .ytick text")
    assert lanes.all_text_contents() == ["seed1 · conv"]
    assert tab.page.get_by_label("Gradients of").locator("option:checked").text_content() == "environment 1"


@pytest.mark.full
def test_another_parameter_can_be_chosen(opened: Open) -> None:
    tab = opened()
    box = tab.page.get_by_label("Parameter", exact=True)
    assert box.locator("option:checked").text_content() == "environment 0 · all parameters"
    box.select_option(label="environment 1 · block.2.weight")
    tab.page.locator("[data-legend=distribution]").get_by_role("button", name="0.25 quantile").wait_for()
    assert tab.page.locator("[data-plot=distribution] .scatterlayer .trace").count() == 5


def test_a_slider_smooths_losses_as_a_moving_average_does(opened: Open) -> None:
    tab = opened()
    tab.page.get_by_label("Smoothing").fill("0.9")
    tab.page.wait_for_function("document.getElementById('smoothed').textContent === '0.90'")
    name = "environment 1 · train"
    found = tab.page.evaluate(
        "(name) => document.querySelector('[data-plot=loss]')._fullData.filter(t => t.name === name).map(t => [...t.y])",
        name,
    )
    raw, smooth = found
    assert len(raw) == len(smooth) == 60
    expected: list[float | None] = []
    mean, weight = 0.0, 0.0
    for value in raw:
        if value is None or math.isnan(value):
            expected.append(None)
            continue
        mean, weight = 0.9 * mean + 0.1 * value, 0.9 * weight + 0.1
        expected.append(mean / weight)
    assert smooth == pytest.approx(expected)
    tab.page.get_by_label("Smoothing").fill("0")
    tab.page.wait_for_function(
        "document.querySelectorAll('[data-plot=loss] .scatterlayer .trace:has(.lines path)').length === 4"
    )
    assert tab.page.evaluate("document.querySelector('[data-plot=rate]').data.length") == 2  # a rate is not smoothed


@pytest.mark.full
def test_a_logarithmic_scale_can_be_had(opened: Open) -> None:
    tab = opened()
    tab.page.get_by_role("button", name="Logarithmic scale, Loss").click()
    tab.page.wait_for_function("document.querySelector('[data-plot=loss]').layout.yaxis.type === 'log'")


def test_what_is_not_finite_is_marked(shown: Opened) -> None:
    assert (
        shown.page.locator("[data-legend=loss]").get_by_role("button", name="environment 0 · train: not finite").count()
        == 1
    )
    texts = shown.page.evaluate(
        "document.querySelector('[data-plot=loss]').data.filter(t => t.yaxis === 'y2').map(t => t.text)"
    )
    assert texts == [["NaN"], ["NaN"]]


def test_it_works_without_a_mouse(opened: Open) -> None:
    tab = opened()
    before = tab.x_range("heatmap")
    tab.page.locator("[data-plot=heatmap]").focus()
    for key in ("+", "ArrowRight"):
        now = tab.x_range("heatmap")
        tab.page.keyboard.press(key)
        assert tab.x_range("heatmap") != now
    tab.page.keyboard.press("0")
    assert tab.x_range("heatmap") == before
    tab.page.locator("[data-legend=loss] button").first.focus()
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_function("document.activeElement.getAttribute('aria-pressed') === 'false'")


def test_everything_that_can_be_used_has_a_name(shown: Opened) -> None:
    tree = shown.page.locator("body").aria_snapshot()
    assert not re.findall(
        r"^\s*- (?:button|combobox|link|group|region|table|figure|toolbar|navigation)(?: \[.*\])?:?$",
        tree,
        re.MULTILINE,
    )
    for title in ("Loss", "Lives of the seeds", "Gradient norm by parameter"):
        assert re.search(rf'group "{title}\. ', tree)
    assert shown.page.locator("html").get_attribute("lang") == "en"


def test_each_figure_has_its_numbers_as_a_table(shown: Opened) -> None:
    for name in FIGURES:
        details = shown.page.locator(f"#panel-{name} details")
        details.locator("summary").click()
        assert details.locator("tbody tr").first.is_visible(), name
    row = shown.page.locator("#panel-loss tbody tr").first.locator("td").all_text_contents()
    assert row[0] == "environment 0 · train"
    assert row[-1] == "1"


@pytest.mark.parametrize("width", [390, 320])
@pytest.mark.parametrize("name", ["whole", "hostile"])
def test_nothing_overflows_a_narrow_screen(opened: Open, name: str, width: int) -> None:
    tab = opened(name, viewport={"width": width, "height": 800})
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_killed_run_is_shown_as_far_as_it_went(opened: Open) -> None:
    tab = opened("killed")
    assert tab.page.locator(".status").text_content() == "No end recorded"
    assert "killed, or still running" in (tab.page.locator(".reason").text_content() or "")
    legend = tab.page.locator("[data-legend=swimlane]")
    assert legend.get_by_role("button", name="fate still open").count() == 1
    assert legend.get_by_role("button", name="fossilized").count() == 0


def test_no_name_becomes_markup_or_a_script(opened: Open) -> None:
    tab = opened("hostile")
    for name in FIGURES:
        box = tab.box(name)
        tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.3, steps=4)
    assert tab.page.evaluate("window.hacked") is None
    assert tab.page.locator("img").count() == 0
    assert tab.page.locator("main b").count() == 0
    assert tab.page.locator("h1").text_content() == f"Run run{HOSTILE}"
    assert tab.page.locator("#blueprints td").first.text_content() == f"conv{HOSTILE}"
    named = tab.page.locator("[data-plot=heatmap] .ytick text").first.text_content() or ""
    assert "onerror" in named or "…" in named
