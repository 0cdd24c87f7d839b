"""Mapping from time to optimizer step."""

import numpy as np

from nissa.charts.series import Times, Values
from nissa.recordings import Recording
from nissa.report.series_keys import SeriesKey
from nissa.semconv import metrics as metric


class Clock:
    """Optimizer steps over time per environment and rank, from the gauge ``nissa.step``.

    Args:
        recording: Recorded telemetry of the run.
    """

    def __init__(self, recording: Recording) -> None:
        self._axes: dict[tuple[str, int], tuple[Times, Values]] = {}
        parts: dict[tuple[str, int], list[tuple[Times, Values]]] = {}
        for stream in recording.of(metric.STEP.name):
            series_key = SeriesKey.of(stream.attributes, stream.process)
            parts.setdefault((series_key.env, series_key.rank), []).append((stream.times, stream.values))
        for key, found in parts.items():
            times = np.concatenate([times for times, _ in found])
            values = np.concatenate([values for _, values in found])
            times, values = times[np.isfinite(values)], values[np.isfinite(values)]
            if len(times):
                order = np.argsort(
                    times, kind="stable"
                )  # A resumed run continues in another process: merge its streams.
                self._axes[key] = times[order], values[order]

    @property
    def known(self) -> bool:
        """Whether any step was recorded."""
        return bool(self._axes)

    def last_steps(self) -> dict[str, int]:
        """Return the last step of each environment."""
        steps: dict[str, int] = {}
        for (env, _), (_, values) in self._axes.items():
            steps[env] = max(steps.get(env, 0), int(values.max()))
        return steps

    def steps(self, series_key: SeriesKey, times: Times) -> Values:
        """Return the latest step at each time; NaN if the environment recorded no steps.

        Between recorded points, steps are interpolated linearly: of a long run not every step is kept.
        """
        axis = self._of(series_key)
        if axis is None:
            return np.full(len(times), np.nan)
        begin = axis[0][0]
        exact: Values = np.interp((times - begin).astype(np.float64), (axis[0] - begin).astype(np.float64), axis[1])
        return exact // 1

    def step(self, series_key: SeriesKey, time: int) -> float:
        """Return the latest step at one time; NaN if it is unknown."""
        return float(self.steps(series_key, np.array([time], dtype=np.int64))[0])

    def _of(self, series_key: SeriesKey) -> tuple[Times, Values] | None:
        exact = self._axes.get((series_key.env, series_key.rank))
        if exact is not None:
            return exact
        return next((axis for (env, _), axis in self._axes.items() if env == series_key.env), None)
