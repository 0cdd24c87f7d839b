"""A layer that ceased to learn while the others go on.

Its share of the global gradient norm is compared with what was usual for it: when training converges all norms fall, but
shares stay. Where norms of weights are measured, a weight that no step moves though it has a gradient has stalled too.
Source: the comparison of a layer with its own past is pulsegrad's; the second, Micikevicius et al., "Mixed Precision
Training" (2018), on updates that half precision rounds away.
"""

from typing import TYPE_CHECKING

import numpy as np

from nissa.diagnostics.baseline import Baseline, LayerBaseline
from nissa.diagnostics.rule import FINE, UNCLEAR, Judgement, Rule, Symptom
from nissa.diagnostics.words import in_layers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nissa.hub.measurements import GradientsMeasured
    from nissa.profiles.sections import DiagnosticsConfig

_EXPECTED = 3  # layers, below which a share says little
_BURST = 10.0
_ROUNDING = 1e-5
"""A share below it may be rounding alone, as that of a bias before a normalisation."""


class StalledLayer(Rule):
    """Layers whose share of the gradient collapsed, or whose weights stand still."""

    name = "stalled_layer"
    anomaly = "stalled"
    advice = "See whether the layers named are still connected to the loss, and which learning rate their group has."

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._usual = LayerBaseline(self.rules.window, self.rules.warm_up)
        self._whole = Baseline(self.rules.window, self.rules.warm_up)
        self._weights: dict[str, float] = {}
        self._still: dict[str, int] = {}
        self._alive: dict[str, int] = {}
        self._waiting: dict[str, int] = {}

    def gradients(self, sample: "GradientsMeasured") -> Judgement:
        """Judge a sample."""
        norms = sample.moments.norm
        whole = sample.health.global_norm
        if not whole or sample.health.nonfinite or len(norms) < _EXPECTED:
            return None
        idle = self._idle(sample)
        if idle:
            return Symptom(seen=f"No more gradients in {in_layers(idle)}", layers=idle, value=0.0)
        if (
            self._whole.ready and whole > _BURST * self._whole.usual()[0]
        ):  # another layer explodes, beside which all is small
            return UNCLEAR
        self._whole.feed(whole)
        share = norms / whole
        usual = self._usual.median(sample.names)
        fallen = (share < self.rules.stalled_drop * usual) & (usual > _ROUNDING)
        self._usual.feed(sample.names, share, ~fallen)
        stalled = fallen | (self._standing(sample, norms) & (share > _ROUNDING))
        if not stalled.any() or stalled.all():
            return FINE
        layers = tuple(name for name, chosen in zip(sample.names, stalled, strict=True) if chosen)
        return Symptom(
            seen=f"No more learning in {in_layers(layers)}", layers=layers, value=float(share[stalled].min())
        )

    def _idle(self, sample: "GradientsMeasured") -> tuple[str, ...]:
        """Return the parameters that wait for a gradient, had one for long, and have had none for as long."""
        for name in sample.names:
            self._alive[name] = self._alive.get(name, 0) + 1
            self._waiting.pop(name, None)
        for name in sample.idle:
            self._waiting[name] = self._waiting.get(name, 0) + 1
        warm = self.rules.warm_up
        return tuple(name for name in sample.idle if self._alive.get(name, 0) >= warm and self._waiting[name] >= warm)

    def _standing(self, sample: "GradientsMeasured", norms: "NDArray[np.float64]") -> "NDArray[np.bool_]":
        """Tell which weights have had a gradient and the same norm for a whole warm-up."""
        still = np.zeros(len(norms), dtype=bool)
        if sample.weight_norms is None:
            return still
        for row, (name, weight) in enumerate(zip(sample.names, sample.weight_norms.tolist(), strict=True)):
            same = norms[row] > 0 and weight > 0 and self._weights.get(name) == weight
            self._still[name] = self._still.get(name, 0) + 1 if same else 0
            self._weights[name] = weight
            still[row] = self._still[name] >= self.rules.warm_up
        return still
