"""A layer that stopped learning while the others continue.

The layer's share of the global gradient norm is compared with its own median: all norms fall when training converges, but
shares stay. If weight norms are measured, a weight with a gradient whose norm does not change has stalled too.
Source: pulsegrad for the comparison of a layer with its own past; Micikevicius et al., "Mixed Precision Training" (2018),
for updates that half precision rounds away.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from nissa.diagnostics.baseline import Baseline, LayerBaseline, rows_before
from nissa.diagnostics.rule import FINE, UNCLEAR, Judgement, Rule, Symptom
from nissa.diagnostics.words import in_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import SampleBlock

_DROP: Final = 1e-3
"""Ratio of a layer's share of the global norm to its median below which it stalls; chosen on the tuning half of tests/pathologies."""

_EXPECTED = 3  # minimum number of layers; with fewer, a share means little
_BURST = 10.0
_ROUNDING = 1e-5
"""Shares below this may be rounding errors, as for a bias before a normalisation."""


class StalledLayer(Rule):
    """A layer's share of the gradient collapsed, or its weights do not change."""

    name = "stalled_layer"
    anomaly = "stalled"
    advice = "See whether the layers named are still connected to the loss, and which learning rate their group has."

    def __init__(self, config: "DiagnosticsConfig") -> None:
        super().__init__(config)
        self._usual = LayerBaseline(self.rules.window, self.rules.warm_up)
        self._whole = Baseline(self.rules.window, self.rules.warm_up)
        self._layers = _Layers(self.rules.warm_up)

    def samples(self, block: "SampleBlock") -> "Sequence[Judgement]":
        """Judge the samples of a block."""
        return [self._judge(block, row, *entry) for row, entry in enumerate(block.trusted_norms())]

    def _judge(self, block: "SampleBlock", row: int, missed: int, whole: float | None) -> Judgement:
        if missed:
            self._lose(missed)
        if not whole or len(block.names) < _EXPECTED:
            return None
        self._layers.follow(block.names, block.idle[row])
        idle = self._layers.idle()
        if idle:
            return Symptom(seen=f"No more gradients in {in_layers(idle)}", layers=idle, value=0.0)
        if (
            self._whole.ready and whole > _BURST * self._whole.usual()[0]
        ):  # another layer explodes, so all other shares are small
            return UNCLEAR
        return self._shares(block, row, whole)

    def _shares(self, block: "SampleBlock", row: int, whole: float) -> Judgement:
        otherwise = FINE if self._usual.settled else None
        norms = block.norm[row]
        self._whole.feed(whole)
        share = norms / whole
        usual = self._usual.median(block.names)
        fallen = (share < _DROP * usual) & (usual > _ROUNDING)
        self._usual.feed(block.names, share, ~fallen)
        stalled = fallen
        if block.weight_norms is not None:
            stalled = fallen | (self._layers.standing(norms, block.weight_norms[row]) & (share > _ROUNDING))
        if not stalled.any() or stalled.all():
            return otherwise
        layers = block.named(stalled)
        return Symptom(
            seen=f"No more learning in {in_layers(layers)}", layers=layers, value=float(share[stalled].min())
        )

    def _lose(self, missed: int) -> None:
        self._usual.lose(missed)
        self._whole.lose(missed)
        self._layers.interrupt()


class _Layers:
    """Counts per layer: samples with a gradient, samples without one, and samples without a change of its weights.

    Layers that are neither in the newest sample nor idle in it are removed, to bound memory in a network that grows and
    shrinks.

    Args:
        warm_up: Number of samples from which a count is significant.
    """

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self._names: tuple[str, ...] = ()
        self._idle: tuple[str, ...] = ()
        # One entry per layer: first the layers with a gradient, then the idle ones.
        self._alive, self._waited, self._still = np.zeros((3, 0), dtype=np.int64)
        self._weights = np.empty(0)

    def __len__(self) -> int:
        return len(self._weights)

    def follow(self, names: tuple[str, ...], idle: tuple[str, ...]) -> None:
        """Update the counts with a sample.

        Args:
            names: Layers with a gradient.
            idle: Parameters that require a gradient and had none.
        """
        if names != self._names or idle != self._idle:
            self._arrange(names, idle)
        self._alive[: len(names)] += 1
        self._waited[: len(names)] = 0
        self._waited[len(names) :] += 1

    def idle(self) -> tuple[str, ...]:
        """Return the parameters that had gradients for a warm-up, and then none for another one."""
        if not self._idle:
            return ()
        rows = slice(len(self._names), None)
        long = (self._alive[rows] >= self._warm_up) & (self._waited[rows] >= self._warm_up)
        return tuple(self._idle[row] for row in np.flatnonzero(long))

    def standing(self, norms: "NDArray[np.float64]", weights: "NDArray[np.float64]") -> "NDArray[np.bool_]":
        """Return a mask of the weights with a gradient and an unchanged norm for a whole warm-up.

        Args:
            norms: Norms of the gradients of this sample.
            weights: Norms of the weights.
        """
        before, still = self._weights[: len(weights)], self._still[: len(weights)]
        same = (norms > 0) & (weights > 0) & (before == weights)
        still[:] = np.where(same, still + 1, 0)
        before[:] = weights
        return still >= self._warm_up

    def interrupt(self) -> None:
        """Restart the counts of consecutive samples after a sample was lost."""
        self._waited[:] = self._still[:] = 0
        self._weights[:] = np.nan

    def _arrange(self, names: tuple[str, ...], idle: tuple[str, ...]) -> None:
        now = (*names, *idle)
        before = rows_before((*self._names, *self._idle), now)
        stay = before >= 0
        weights, counts = np.full(len(now), np.nan), np.zeros((3, len(now)), dtype=np.int64)
        weights[stay] = self._weights[before[stay]]
        for count, old in zip(counts, (self._alive, self._waited, self._still), strict=True):
            count[stay] = old[before[stay]]
        self._alive, self._waited, self._still = counts
        self._names, self._idle, self._weights = names, idle, weights
