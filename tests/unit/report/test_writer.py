"""The page as a file."""

import html
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nissa.cli import app
from nissa.errors import ConfigurationError
from nissa.recordings import Distribution, DistributionStream, Process, Recording, Stream, read
from nissa.report import write_report
from nissa.report.page import page
from nissa.report.run_summary import RunSummary
from nissa.report.writer import NAME, sections
from tests import otlp
from tests.recorded import HOSTILE, Recorded, at

MOST_BYTES = 6_000_000
_WITHOUT = "import sys; sys.modules[{name!r}] = None; sys.argv = ['nissa', 'report', {folder!r}]; from nissa.cli import main; main()"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Recorded().write(tmp_path / "nissa-runs" / "r")


def test_what_was_written_is_told(folder: Path) -> None:
    written = write_report(folder)
    assert Path(written.path) == folder / NAME
    assert written.bytes == (folder / NAME).stat().st_size
    assert (written.run_id, written.status, written.seeds, written.findings, written.narratives) == (
        "run",
        "completed",
        2,
        2,
        12,
    )


def test_the_same_run_gives_the_same_page(folder: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one.html", tmp_path / "other.html"
    write_report(folder, one)
    write_report(folder, other)
    assert one.read_bytes() == other.read_bytes()


def test_nothing_is_fetched_from_anywhere(folder: Path) -> None:
    text = Path(write_report(folder).path).read_text()
    assert "default-src 'none'" in html.unescape(text)
    assert "http://" not in text
    assert "https://" not in text


def test_no_name_is_markup(tmp_path: Path) -> None:
    text = Path(write_report(Recorded(mark=HOSTILE).write(tmp_path / "h")).path).read_text()
    assert "<img" not in text
    assert text.count("</script>") == 3
    assert "&lt;/script&gt;&lt;img" in text


def test_a_section_without_anything_to_show_says_why(tmp_path: Path) -> None:
    line = otlp.logs(otlp.record("nissa.event.training_started", at(0)))
    facts = RunSummary(read(otlp.write(tmp_path / "r", logs=[line])), "r")
    for section in sections(facts):
        for panel in section.panels:
            assert panel.empty.endswith(".")
            assert not panel.variants
        assert section.panels or section.empty.endswith(".")
    assert "No loss was logged" in page(facts, sections(facts))


def test_a_run_without_validation_says_so(tmp_path: Path) -> None:
    line = otlp.metrics(otlp.gauge("nissa.loss", [(at(0), 1.0), (at(1), 0.5)], {"nissa.phase": "train"}))
    learned = sections(RunSummary(read(otlp.write(tmp_path / "r", metrics=[line])), "r"))[1]
    assert "No validation was logged." in learned.panels[0].reading


ORDER = ["findings", "learning", "speed", "optimizer", "run"]


def test_sections_and_panels_have_the_order_in_which_a_reader_asks(tmp_path: Path) -> None:
    facts = RunSummary(read(Recorded().write(tmp_path / "r")), "r")
    found = sections(facts)
    assert [section.key for section in found][: len(ORDER)] == ORDER
    panels = [panel.key for section in found for panel in section.panels]
    order = ["loss", "scalars", "throughput", "phases", "clip-norm", "clip-factor", "rate", "memory", "device-memory"]
    assert [key for key in panels if key in order] == order
    text = page(facts, found)
    places = [text.index(f'id="{key}"') for key in [*ORDER, "seeds", "blueprints", "gradients"]]
    assert places == sorted(places)


def test_only_a_run_with_seeds_has_sections_and_words_of_seeds(tmp_path: Path) -> None:
    with_seeds = RunSummary(read(Recorded().write(tmp_path / "r")), "r")
    assert {"seeds", "blueprints"} <= {section.key for section in sections(with_seeds)}
    lines = [
        otlp.metrics(
            *(
                otlp.gauge(name, [(at(0), 1.0), (at(1), 2.0)], {"nissa.env.id": env})
                for name in ("nissa.loss", "nissa.step")
                for env in "01"
            )
        )
    ]
    plain = RunSummary(read(otlp.write(tmp_path / "p", metrics=lines)), "p")
    assert not {"seeds", "blueprints"} & {section.key for section in sections(plain)}
    text = page(plain, sections(plain)).partition('<script type="application/gzip')[0].lower()
    assert "environments at a glance" in text
    assert "seed" not in text.replace("seeded", "")
    assert "blueprint" not in text


def large(parameters: int, samples: int) -> Recording:
    """Return a run whose numbers nothing can compress: two environments, all gradients at each of many steps."""
    noise = np.random.default_rng(0)
    times = at(0) + np.arange(samples, dtype=np.int64) * 1_000_000_000
    streams, distributions = [], []
    for env in ("0", "1"):
        about = {"nissa.env.id": env}
        streams.append(Stream("nissa.step", about, Process({}), times, np.arange(samples, dtype=np.float64)))
        names = ("nissa.loss", "nissa.gradient.global_norm", "nissa.gradient.health", "nissa.learning_rate")
        streams += [Stream(name, about, Process({}), times, noise.random(samples)) for name in names]
        for number in range(parameters):
            told = about | {"nissa.parameter.name": f"blocks.{number}.attention.projection.weight"}
            streams.append(Stream("nissa.gradient.norm", told, Process({}), times, noise.lognormal(size=samples)))
            for level in ("0.01", "0.25", "0.5", "0.75", "0.99"):
                quantile = told | {"nissa.quantile": level}
                streams.append(
                    Stream("nissa.gradient.quantile", quantile, Process({}), times, noise.lognormal(size=samples))
                )
            points = (
                Distribution(at(0), at(step), 2, -80, noise.integers(0, 10_000, 160), 0)
                for step in range(15, 15 * 80, 15)
            )
            distributions.append(
                DistributionStream(
                    "nissa.gradient.magnitude", told, Process({}), cumulative=False, points=tuple(points)
                )
            )
    return Recording(("metrics.jsonl",), (), tuple(streams), tuple(distributions), ())


@pytest.mark.full
def test_a_large_run_stays_below_the_limit() -> None:
    facts = RunSummary(large(parameters=200, samples=1_200), "large")
    assert len(page(facts, sections(facts)).encode()) < MOST_BYTES


def test_the_command_reports_the_newest_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    said = CliRunner().invoke(app, ["report", "--json"])
    assert said.exit_code == 0
    told = json.loads(said.output)
    assert told["path"] == "nissa-runs/r/report.html"
    assert told["points"] > 500
    assert Path(told["path"]).stat().st_size == told["bytes"]


def test_the_command_names_lines_that_it_left_out(folder: Path) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"resourceMetrics": [')
    said = CliRunner().invoke(app, ["report", str(folder), "--output", str(folder / "mine.html")])
    assert said.exit_code == 0
    assert said.stdout.splitlines()[0] == str(folder / "mine.html")
    assert "metrics.jsonl:5" in said.stderr


@pytest.mark.parametrize("name", ["plotly", "jinja2"])
def test_what_is_missing_is_named_with_what_to_install(folder: Path, name: str) -> None:
    code = _WITHOUT.format(name=name, folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'nissa[report]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_written_is_an_error_with_the_way_out(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="--output"):
        write_report(folder, folder)
