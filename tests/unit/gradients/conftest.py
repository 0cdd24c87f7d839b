"""A session with a memory backend and no exporter: what a run consists of, without what it sends to."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import nissa
from nissa import MemoryBackend
from nissa.config import TelemetryConfig
from nissa.hub.measurements import GradientsMeasured, StepMeasured
from nissa.kernels.moments import Moments
from nissa.run.environment import Environment
from nissa.run.runtime import Runtime
from nissa.testing import FakeClock
from tests.toys import small_network


class Exporter:
    """Stands for the run's own backend, whose worker reads rows back."""

    def emit(self, event: object) -> None:
        pass


class Lab:
    def __init__(self, profile: str = "diagnostic", **overrides: Any) -> None:
        self.hub = nissa.get_hub()
        self.memory = MemoryBackend()
        self.clock = FakeClock()
        # On a busy machine a row may take longer than a validation waits by default.
        self.config = TelemetryConfig.from_profile(profile, {"limits__validation_wait_seconds": 10} | overrides)
        self.runtime = Runtime(self.config, self.hub, run_id="run", now=self.clock, on_hub_closed=lambda: None)
        self.env = Environment(self.runtime, None)
        self.hub.add_backend(Exporter(), f"exporter-{id(self)}", source=self.runtime)
        self.hub.add_backend(self.memory)
        self.hub.listen(self.runtime)

    def environment(self, env_id: str) -> Environment:
        return Environment(self.runtime, env_id)

    def flush(self) -> None:
        assert self.runtime.readback.flush(10)
        assert self.hub.flush(10)

    @property
    def samples(self) -> list[GradientsMeasured]:
        self.flush()
        return [each for each in self.memory.measurements if isinstance(each, GradientsMeasured)]

    @property
    def steps(self) -> list[StepMeasured]:
        self.flush()
        return [each for each in self.memory.measurements if isinstance(each, StepMeasured)]

    def close(self) -> None:
        self.runtime.stop_watching()
        assert self.runtime.readback.close(10)

    @staticmethod
    def row(sample: GradientsMeasured, name: str) -> Moments:
        return sample.moments.select([sample.names.index(name)])

    def agrees(self, sample: GradientsMeasured, taken: dict[str, torch.Tensor]) -> None:
        """The sample holds exactly the gradients of a copy."""
        assert sorted(sample.names) == sorted(taken)
        for name, gradient in taken.items():
            row, values = self.row(sample, name), _reals(gradient)
            assert row.count[0] == values.numel()
            assert row.zeros[0] == (values == 0).sum()
            assert row.norm[0] == pytest.approx(values.norm().item(), rel=1e-12)
            assert row.total[0] == pytest.approx(values.sum().item(), rel=1e-9, abs=1e-12)
            assert row.abs_max[0] == values.abs().max()
            assert row.buckets is not None
            nonzero = row.buckets.sum() + row.underflow[0] + row.overflow[0]
            assert nonzero == (values != 0).sum()


def _reals(gradient: torch.Tensor) -> torch.Tensor:
    dense = gradient.to_dense() if gradient.is_sparse else gradient
    return (torch.view_as_real(dense) if dense.is_complex() else dense).to(torch.float64)


@pytest.fixture
def make_lab() -> Iterator[Callable[..., Lab]]:
    labs: list[Lab] = []

    def make(profile: str = "diagnostic", **overrides: Any) -> Lab:
        labs.append(Lab(profile, **overrides))
        return labs[-1]

    yield make
    for lab in labs:
        lab.close()


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """Samples every step."""
    return make_lab()


@pytest.fixture
def network() -> torch.nn.Sequential:
    return small_network()
