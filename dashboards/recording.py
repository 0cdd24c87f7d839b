"""Recording rules: what alerts compare over hours, and what a panel would have to compute anew each time."""

from typing import Final

from dashboards.promql import Recorded, among, highest, series, share, summed
from nissa.events import Stage
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, pipeline

RUN: Final = (pipeline.SERVICE_NAME, attr.RUN_ID)
"""Labels that identify a run."""
PROCESS: Final = (*RUN, attr.RANK, pipeline.SERVICE_INSTANCE_ID)
"""Labels that identify a process."""

_MODEL: Final = (*RUN, attr.RANK, attr.ENV_ID, attr.MODEL_NAME)

KEPT: Final = Stage.FOSSILIZED.label
GONE: Final = Stage.CULLED.label


def _success() -> str:
    of_kept = summed(series(metrics.SEED_TRANSITIONS, {attr.SEED_TO: KEPT}), *RUN, attr.BLUEPRINT_ID)
    of_all = summed(series(metrics.SEED_TRANSITIONS, {attr.SEED_TO: among(KEPT, GONE)}), *RUN, attr.BLUEPRINT_ID)
    return share(of_kept, of_all)


STEPS: Final = Recorded(
    "process_environment:nissa_step:max",
    highest(series(metrics.STEP), *PROCESS, attr.ENV_ID),
    (*PROCESS, attr.ENV_ID),
    "Steps have a sample each; a sample at each evaluation is what can be compared with hours ago.",
)
SUCCESS: Final = Recorded(
    "run_blueprint:nissa_seed_success:ratio",
    _success(),
    (*RUN, attr.BLUEPRINT_ID),
    "Share of fossilized among fossilized and culled seeds; the fraction that has no metric of its own.",
)
MAGNITUDE: Final = Recorded(
    "process_model:nissa_gradient_magnitude:rate2m",
    summed(f"rate({series(metrics.GRADIENT_MAGNITUDE)}[2m])", *_MODEL),
    (*_MODEL, attr.PARAMETER_NAME),  # which it never has: a matcher that takes what has none selects it
    "Rates of 200 histograms over a day take more than a second to add up; this is their sum.",
)

ALL: Final = (STEPS, SUCCESS, MAGNITUDE)
