"""Recording rules: what alerts compare over hours, and what a panel would have to compute anew each time."""

from typing import Final

from dashboards.promql import Recorded, among, highest, series, share, summed
from nissa.events import Stage
from nissa.semconv import attributes as attr
from nissa.semconv import metrics, pipeline

RUN: Final = (pipeline.SERVICE_NAME, attr.RUN_ID)
"""What a run is told by."""
PROCESS: Final = (*RUN, attr.RANK, pipeline.SERVICE_INSTANCE_ID)
"""What a process is told by."""

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

ALL: Final = (STEPS, SUCCESS)
