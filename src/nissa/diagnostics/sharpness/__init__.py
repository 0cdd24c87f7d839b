"""How curved the loss is where the weights are, from evaluations of the loss of one fixed batch.

What each method says, and what it does not, is in ``docs/explanation/sharpness.md``.
"""

from nissa.diagnostics.sharpness.average import average_case as average_case
from nissa.diagnostics.sharpness.critical_sharpness import critical as critical
from nissa.diagnostics.sharpness.measured import Sharpness as Sharpness
from nissa.diagnostics.sharpness.measured import SharpnessMeasured as SharpnessMeasured
from nissa.diagnostics.sharpness.probe import SharpnessProbe as SharpnessProbe
