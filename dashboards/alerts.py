"""Alerts on what somebody has to act on; what to do stands in ``docs/how-to/alerts.md`` under the alert's name.

A run that ends states so in its last export, and then its series stop: nothing here fires for it.
"""

from dataclasses import dataclass
from typing import Final, Literal

from dashboards.links import RUNBOOKS
from dashboards.promql import among, grown, highest, isnt, labels, latest, name, series, summed
from dashboards.recording import GONE, KEPT, PROCESS, RUN, STEPS
from nissa.events import EventType
from nissa.hub.worker import DELIVERED, DROPPED, FAILED
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, pipeline, prometheus


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert.

    Args:
        name: Its name, and the heading of its runbook.
        expression: PromQL that returns something while it holds.
        hold: How long it must hold.
        severity: ``page`` for what costs a run if it waits until morning, else ``ticket``.
        summary: One line, with labels in it.
        description: What was seen, and the first thing to look at.
    """

    name: str
    expression: str
    hold: str
    severity: Literal["page", "ticket"]
    summary: str
    description: str

    @property
    def runbook(self) -> str:
        """Where it is written what to do."""
        return f"{RUNBOOKS}#{self.name.lower()}"


PATIENCE: Final = "10m"
"""How long a run may take no step. A checkpoint or a validation that takes longer needs more."""
MEMORY: Final = "6h"
"""How far back a stalled run's last step is looked for."""
FEWEST_CULLS: Final = 5
"""Culls below which nothing is concluded from there being more of them than fossilized seeds."""
MOST_OVERHEAD: Final = 0.05


def _of(key: str) -> str:
    return f"{{{{ $labels.{prometheus.label(key)} }}}}"


_WHERE = (*RUN, attr.ENV_ID, attr.MODEL_NAME)
_RUN = f"Run {_of(attr.RUN_ID)} of {_of(pipeline.SERVICE_NAME)}"
_ON = f"on ({labels(*PROCESS)})"
_ON_RUN = f"on ({labels(*RUN)})"
_EXPORTS = highest(series(metrics.HUB_QUEUE_SIZE), *PROCESS)
"""Processes that are alive: the hub exports the size of its queues with each export, whatever training does."""
_ENDED = highest(latest(series(metrics.HUB_EVENTS, {attr.EVENT_TYPE: EventType.TRAINING_ENDED.value}), "1h"), *PROCESS)
_BEFORE = latest(series(STEPS), MEMORY, PATIENCE)
_RECENT = f"max_over_time({series(STEPS)}[{PATIENCE}])"

_RANKS = (*RUN, attr.RANK)
_ON_RANK = f"on ({labels(*_RANKS)})"


def _stalled() -> str:
    """Alive and not ended, it had taken steps before, and no environment has taken one since nor begun."""
    return (
        f"{highest(_BEFORE, *PROCESS)} and {_ON} {_EXPORTS} unless {_ON} {_ENDED}"
        f" unless {_ON} ({_RECENT} > {_BEFORE}) unless {_ON} ({_RECENT} unless {_BEFORE})"
    )


def _rank_silent() -> str:
    """It exported within the hour and does no more, has not said that it ended, and others of its run go on."""
    was_there = latest(series(metrics.HUB_QUEUE_SIZE, {attr.RANK: isnt("")}), "1h")
    return (
        f"{highest(was_there, *_RANKS)} unless {_ON_RANK} {_EXPORTS} unless {_ON_RANK} {_ENDED}"
        f" and {_ON_RUN} {_EXPORTS}"
    )


def _lost() -> str:
    """A run's last process went without a word, while the collector was there to hear it."""
    return (
        f"{highest(latest(series(metrics.HUB_QUEUE_SIZE), '15m'), *RUN)} unless {_ON_RUN} {_EXPORTS}"
        f" unless {_ON_RUN} {_ENDED} and on () {series(pipeline.UPTIME)}"
    )


def _loss_not_finite() -> str:
    """NaN is the one value that differs from itself."""
    loss = series(metrics.LOSS)
    return highest(f"abs({loss}) == Inf or {loss} != {loss}", *_WHERE, attr.PHASE)


def _more_culled() -> str:
    gone = summed(series(metrics.SEED_TRANSITIONS, {attr.SEED_TO: GONE}), *RUN)
    kept = summed(series(metrics.SEED_TRANSITIONS, {attr.SEED_TO: KEPT}), *RUN)
    return f"({gone} > ({kept} or {gone} * 0)) >= {FEWEST_CULLS}"


def _collector_loses() -> str:
    failed = " or ".join(summed(grown(series(each), "10m", "1h"), pipeline.EXPORTER) for each in pipeline.SEND_FAILED)
    full = f"{series(pipeline.QUEUE_SIZE)} / {series(pipeline.QUEUE_CAPACITY)} > 0.8"
    return f"{failed} or {highest(full, pipeline.EXPORTER)}"


ALL: Final = (
    Alert(
        "NissaGradientsNotFinite",
        f"{summed(grown(series(metrics.GRADIENT_NONFINITE), '5m', '1h'), *_WHERE)} > 0",
        "0m",
        "page",
        f"{_RUN} has gradients that are NaN or infinite",
        "{{ $value }} such elements in sampled gradients within 5 minutes. The board Gradients names the parameters.",
    ),
    Alert(
        "NissaLossNotFinite",
        _loss_not_finite(),
        "0m",
        "page",
        f"{_RUN} has a {_of(attr.PHASE)} loss that is not a number",
        "The loss is {{ $value }}. From here on weights are likely lost; the last checkpoint is the way back.",
    ),
    Alert(
        "NissaReplicaMismatch",
        f"{summed(grown(series(metrics.REPLICA_MISMATCH), '10m', '1h'), *_WHERE)} > 0",
        "0m",
        "page",
        f"{_RUN} has replicas with different weights",
        "{{ $value }} parameters differed between ranks within 10 minutes. The finding replica_divergence names ranks, layers and "
        "cause.",
    ),
    Alert(
        "NissaRunStalled",
        _stalled(),
        "1m",
        "page",
        f"{_RUN} has taken no step for {PATIENCE}",
        f"Process {_of(pipeline.SERVICE_INSTANCE_ID)} (rank {_of(attr.RANK)}) is alive and exports; step "
        "{{ $value }} was its last.",
    ),
    Alert(
        "NissaRankSilent",
        _rank_silent(),
        "2m",
        "page",
        f"{_RUN} hears no more of rank {_of(attr.RANK)}",
        "It exported within the last hour and has not said that it ended, while other ranks go on.",
    ),
    Alert(
        "NissaRunLost",
        _lost(),
        "1m",
        "ticket",
        f"{_RUN} went away without ending",
        "No process of it exports, and none has said that training ended: killed, out of memory, or cut off.",
    ),
    Alert(
        "NissaMoreCulledThanFossilized",
        _more_culled(),
        "5m",
        "ticket",
        f"{_RUN} culls more seeds than it keeps",
        "{{ $value }} seeds were culled, and fewer fossilized. The board Seeds has the checks on which gates failed.",
    ),
    Alert(
        "NissaRedFlag",
        f"{highest(latest(series(metrics.RED_FLAG), '1h'), *PROCESS, attr.ENV_ID, attr.RED_FLAG_NAME)} == 1"
        f" and {_ON} {_EXPORTS}",
        "15m",
        "ticket",
        f"{_RUN} has had the red flag {_of(attr.RED_FLAG_NAME)} for 15 minutes",
        f"In environment {_of(attr.ENV_ID)}. docs/reference/rules.md says what raises it and what helps.",
    ),
    Alert(
        "NissaTelemetryDropped",
        summed(
            grown(series(metrics.HUB_EVENTS, {attr.EVENT_OUTCOME: among(DROPPED, FAILED)}), "10m", "1h"),
            *_RANKS,
            attr.BACKEND_NAME,
            attr.EVENT_OUTCOME,
        )
        + " > 0",
        "0m",
        "ticket",
        f"{_RUN}: telemetry was {_of(attr.EVENT_OUTCOME)} on its way to {_of(attr.BACKEND_NAME)}",
        "{{ $value }} events or measurements within 10 minutes; life-cycle events are never among the dropped ones.",
    ),
    Alert(
        "NissaExportLost",
        summed(
            grown(series(metrics.EXPORT_ITEMS, {attr.EXPORT_OUTCOME: isnt(DELIVERED)}), "10m", "1h"),
            *_RANKS,
            attr.SIGNAL,
            attr.EXPORT_OUTCOME,
        )
        + " > 0",
        "0m",
        "ticket",
        f"{_RUN}: {_of(attr.SIGNAL)} were {_of(attr.EXPORT_OUTCOME)}",
        "{{ $value }} items within 10 minutes; the log of the run has the reason.",
    ),
    Alert(
        "NissaReadbackBehind",
        f"{summed(grown(series(metrics.READBACK_DROPPED), '10m', '1h'), *_RANKS)} > 0",
        "0m",
        "ticket",
        f"{_RUN} measures steps faster than it can read them back",
        "{{ $value }} sampled steps gave way within 10 minutes. An overhead budget thins them out evenly.",
    ),
    Alert(
        "NissaOverheadHigh",
        f"{highest(f'avg_over_time({series(metrics.OVERHEAD_RATIO)}[15m])', *_RANKS)} > {MOST_OVERHEAD}",
        "5m",
        "ticket",
        f"{_RUN} spends {{{{ $value | humanizePercentage }}}} of its time on telemetry",
        "On average over 15 minutes. overhead_budget=0.02 keeps it at 2 %.",
    ),
    Alert(
        "NissaCollectorAway",
        f"absent({name(pipeline.UPTIME)})",
        "2m",
        "page",
        "The collector says nothing of itself any more",
        "Either it is down or Prometheus does not take what it sends. Training goes on; telemetry waits or is dropped.",
    ),
    Alert(
        "NissaCollectorLosing",
        _collector_loses(),
        "0m",
        "ticket",
        f"The collector's exporter {_of(pipeline.EXPORTER)} loses data, or is about to",
        "Something was given up within 10 minutes, or its queue is over 80 % full; the collector's log says why.",
    ),
)
