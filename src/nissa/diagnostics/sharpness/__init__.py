"""Sharpness: curvature of the loss at the current weights, from evaluations of the loss of one fixed batch.

``docs/explanation/sharpness.md`` explains the methods and their limits.
"""

from nissa.diagnostics.sharpness.average import average_case as average_case
from nissa.diagnostics.sharpness.critical_sharpness import critical as critical
from nissa.diagnostics.sharpness.measured import Sharpness as Sharpness
from nissa.diagnostics.sharpness.measured import SharpnessMeasured as SharpnessMeasured
from nissa.diagnostics.sharpness.probe import SharpnessProbe as SharpnessProbe
