"""HTML page: one self-contained file that loads nothing over the network.

plotly.js and the figures are embedded compressed, and the browser decompresses them. A content security policy allows
exactly two scripts by their hashes. Script code in a recorded string, such as a seed's name, is therefore not executed.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from nissa.charts import axes
from nissa.charts.plotly import get_plotlyjs
from nissa.charts.theme import SCHEMES, template
from nissa.errors import ConfigurationError
from nissa.report.finding_cards import MOST_OPEN
from nissa.report.overview import environments, leads, tiles
from nissa.report.panels import PageSection, Panel
from nissa.report.run_summary import RunSummary, date_time, duration
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric
from nissa.version import VERSION


def page(run: RunSummary, sections: Sequence[PageSection]) -> str:
    """Return the HTML page.

    Raises:
        ConfigurationError: jinja2 is not installed.
    """
    script, library = asset("report.js"), get_plotlyjs()
    text: str = (
        _environment()
        .from_string(asset("page.html.jinja"))
        .render(
            title=f"{run.service or 'training'} · {run.run_id}",
            run=run,
            began=date_time(run.begin) if run.begin else "",
            lasted=duration(run.end - run.begin),
            tiles=tiles(run),
            leads=leads(run),
            environments=environments(run),
            sections=sections,
            most_findings=MOST_OPEN,
            policy=_policy(script, library),
            style=asset("report.css"),
            schemes={name: asdict(scheme) for name, scheme in SCHEMES.items()},
            script=script,
            library=_library(),
            # The browser's JSON parser rejects NaN, so raise here instead of writing a broken page.
            data=packed(json.dumps(_data(run, sections), separators=(",", ":"), allow_nan=False)),
            version=VERSION,
            profile=run.resource(attr.PROFILE),
        )
    )
    return text


def _environment() -> Any:
    try:
        import jinja2  # noqa: PLC0415 - the error message names the package to install
    except ImportError as error:
        raise ConfigurationError("The report needs jinja2: pip install 'nissa[report]'") from error
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def asset(name: str) -> str:
    """Return the content of a template, style or script file of the page."""
    return (resources.files("nissa.report") / "assets" / name).read_text(encoding="utf-8")


def packed(text: str) -> str:
    """Return text compressed with gzip and encoded as base64, which needs no escaping in HTML.

    The modification time is fixed at 0, so that the same text always gives the same result.
    """
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


@cache
def _library() -> str:
    return packed(get_plotlyjs())


def _policy(*scripts: str) -> str:
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    images = "img-src data: blob:"  # Plotly uses these schemes when a figure is downloaded as an image.
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; {images}; base-uri 'none'; form-action 'none'"


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _data(run: RunSummary, sections: Sequence[PageSection]) -> dict[str, Any]:
    panels = [panel for section in sections for panel in section.panels if panel.variants]
    return {
        "panels": {panel.key: _panel(panel) for panel in panels},
        "templates": {name: template(scheme).to_plotly_json() for name, scheme in SCHEMES.items()},
        "axes": {"time": axes.TIME, "step": axes.STEP},
        "extents": _extents(run),
    }


def _panel(panel: Panel) -> dict[str, Any]:
    return {"variants": [_figure(variant.figure) for variant in panel.variants]}


def _figure(figure: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(figure.to_json())
    # Templates are large and equal for all figures: the page embeds one per scheme, and its script applies it.
    plain["layout"].pop("template")
    return plain


def _extents(run: RunSummary) -> dict[str, list[float]]:
    """Return the axis ranges; time begins at the first step, loss or seed, else at the first record."""
    starts = [int(stream.times[0]) for spec in (metric.STEP, metric.LOSS) for _, stream in run.streams(spec)]
    starts += [life.start for life in run.timelines]
    begin, end = min(starts, default=run.begin), run.end
    time = axes.milliseconds(np.array([begin, max(end, begin + 1_000_000)], dtype=np.float64)).tolist()
    steps = run.clock.last_steps()
    return {"time": time} | ({"step": [0, max(*steps.values(), 1)]} if steps else {})
