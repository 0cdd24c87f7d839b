"""Sampled steps and their measurements, as the settings of a run select them."""

from typing import TYPE_CHECKING

from nissa.gradients.capture import Measures
from nissa.gradients.grouping import Grouping
from nissa.gradients.sampling import OverheadBudget
from nissa.gradients.selection import Selection
from nissa.gradients.step_metadata import SamplingPlan
from nissa.kernels.moments import Layout, Thresholds

if TYPE_CHECKING:
    from nissa.config import GradientConfig, TelemetryConfig
    from nissa.gradients.overhead import ThreadCpuUsage
    from nissa.hub.error_boundary import ErrorBoundary


def sampling_plan(
    config: "TelemetryConfig", background: "ThreadCpuUsage", error_boundary: "ErrorBoundary"
) -> SamplingPlan:
    """Return the sampling plan of a run.

    Args:
        config: Settings of the run.
        background: Processor time of the run's threads, which counts against the overhead budget.
        error_boundary: Error boundary of the budget.
    """
    share = config.overhead_budget
    return SamplingPlan(
        every_n_steps=config.gradients.every_n_steps if config.gradients.enabled else 0,
        selection=Selection(config.gradients.layers),
        measures=_measures(config.gradients),
        budget=None
        if share is None
        else OverheadBudget(share=share, background=background, error_boundary=error_boundary),
    )


def _measures(gradients: "GradientConfig") -> Measures:
    return Measures(
        layout=Layout() if gradients.histogram else Layout(buckets=None),
        thresholds=Thresholds(gradients.vanishing_threshold, gradients.exploding_threshold),
        weights=gradients.weight_norms or gradients.update_ratios,
        updates=gradients.update_ratios,
        grouping=Grouping(gradients.group_by),
        ranks=gradients.ranks,
    )
