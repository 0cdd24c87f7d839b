"""Collector check: health endpoint, refused and lost telemetry, and queue occupancy."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from nissa.doctor.check_result import CheckResult, Level

if TYPE_CHECKING:
    from nissa.doctor.http import HttpResponse

CHECK: Final = "collector"
HEALTH_PORT: Final = 13133
"""Default port of the collector extension ``health_check``."""
COUNTERS_PORT: Final = 8888
"""Default port of the collector's internal Prometheus metrics."""
_FULL: Final = 0.8
"""Fraction of its capacity above which a queue counts as nearly full."""
_GOOD: Final = 200
# Sample in the Prometheus text format; the suffix ``_total`` depends on the collector's version and configuration.
_SAMPLE: Final = re.compile(r"^(otelcol_\w+?)(?:_total)?(?:\{(.*)\})?\s+([0-9.eE+-]+)", re.MULTILINE)
_LOST: Final = {
    "otelcol_receiver_refused": ("refused by its receivers", "It is short of memory, or its exporters do not keep up."),
    "otelcol_exporter_send_failed": ("not delivered to what is behind it", "See which backend is down in its log."),
    "otelcol_exporter_enqueue_failed": (
        "dropped, since a queue was full",
        "Enlarge the queue, or see what is slow behind it.",
    ),
}


def judge_health(url: str, response: "HttpResponse | None", *, asked_for: bool) -> CheckResult:
    """Return the finding for a health check.

    Args:
        url: URL of the health check.
        response: Its response; None if the request failed.
        asked_for: The user passed this URL, so a missing response is a warning and not a note.
    """
    if response is None:
        found = f"No health check answers at {url}, so that the collector's health is not known."
        advice = "Turn on the extension health_check, or name its URL with --health."
        return CheckResult(CHECK, Level.WARNING if asked_for else Level.NOTE, found, advice)
    status = _status(response)
    if response.status == _GOOD:
        return CheckResult(CHECK, Level.OK, f"{url} reports: {status}.")
    advice = "See the collector's log; a pipeline of it is not ready."
    return CheckResult(CHECK, Level.ERROR, f"{url} answers {response.status}: {status}.", advice)


def _status(response: "HttpResponse") -> str:
    with suppress(ValueError):
        parsed = json.loads(response.body)
        if isinstance(parsed, dict) and "status" in parsed:
            return str(parsed["status"]) + (f", up for {parsed['uptime']}" if parsed.get("uptime") else "")
    return "healthy" if response.status == _GOOD else "nothing more"


def judge_counters(url: str, response: "HttpResponse | None", *, asked_for: bool) -> list[CheckResult]:
    """Return the findings for a collector's internal metrics.

    If the metrics are unavailable and the user did not pass the URL, the list is empty.
    """
    if response is None or response.status != _GOOD:
        found, advice = f"The collector shows no metrics of its own at {url}.", "Correct --counters, or leave it out."
        return [CheckResult(CHECK, Level.WARNING, found, advice)] if asked_for else []
    totals, queues = _totals(response.body)
    findings = [*_losses(totals), *_queues(queues)]
    return findings or [CheckResult(CHECK, Level.OK, f"{url}: nothing refused, nothing lost, and room in the queues.")]


def _totals(text: str) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return the sum per metric name, and the size and capacity per queue (one queue per exporter and signal)."""
    totals: defaultdict[str, float] = defaultdict(float)
    queues: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for name, labels, value in _SAMPLE.findall(text):
        with suppress(ValueError):
            totals[name] += float(value)
            if name in {"otelcol_exporter_queue_size", "otelcol_exporter_queue_capacity"}:
                queues[_queue(labels)][name.rpartition("_")[2]] = float(value)
    return totals, queues


def _queue(labels: str) -> str:
    found = dict(re.findall(r'(\w+)="([^"]*)"', labels))
    return " ".join(filter(None, (found.get("exporter", "?"), found.get("data_type", ""))))


def _losses(totals: dict[str, float]) -> Iterator[CheckResult]:
    for prefix, (what, advice) in _LOST.items():
        counts = {name: count for name, count in totals.items() if name.startswith(prefix) and count > 0}
        if counts:
            lost = ", ".join(
                f"{count:,.0f} {name.removeprefix(prefix).strip('_').replace('_', ' ')}"
                for name, count in counts.items()
            )
            yield CheckResult(CHECK, Level.WARNING, f"Since it started, {lost} were {what}.", advice)


def _queues(queues: dict[str, dict[str, float]]) -> Iterator[CheckResult]:
    for name, queue in queues.items():
        if queue.get("capacity") and queue.get("size", 0) >= _FULL * queue["capacity"]:
            found = f"The queue of its exporter {name} is at {queue['size'] / queue['capacity']:.0%}."
            yield CheckResult(
                CHECK, Level.WARNING, found, "What it sends to is down or slow; what comes on top will be refused."
            )
