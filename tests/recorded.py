"""A run as it would have been recorded: of any size, with any names, ended or killed."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import otlp

SECOND = 1_000_000_000
BEGIN = 1_795_828_800 * SECOND
HOSTILE = '</script><img src=x onerror="window.hacked=1"><b>&amp;%{x}'


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What is recorded.

    Args:
        steps: Steps of each environment, a second apart.
        sampled: Gradients are read at each so many steps.
        ended: The run and its seeds came to their ends; else the process was killed.
        mark: Is in every name that a user chooses.
    """

    envs: Sequence[str] = ("0", "1")
    steps: int = 60
    parameters: int = 4
    sampled: int = 2
    ended: bool = True
    mark: str = ""

    def write(self, folder: Path) -> Path:
        """Write the files of the run, and return their folder."""
        return otlp.write(
            folder,
            metrics=[self._line(*each) for env in self.envs for each in (self._learning(env), self._gradients(env))],
            traces=[line for env in self.envs for line in self._seeds(env)],
            logs=list(self._logs()),
        )

    @property
    def points(self) -> int:
        """How many points the losses and gradients have, at least."""
        return len(self.envs) * (4 * self.steps + 6 * self.parameters * len(self._samples))

    def _line(self, *metrics: dict[str, Any]) -> str:
        return otlp.metrics(*metrics, resource=self._resource)

    @property
    def _resource(self) -> dict[str, Any]:
        return {"service.name": f"svc{self.mark}", "nissa.run.id": f"run{self.mark}", "service.instance.id": "p"}

    @property
    def _samples(self) -> range:
        return range(0, self.steps, self.sampled)

    @property
    def _epochs(self) -> range:
        return range(9, self.steps, 10)

    def _learning(self, env: str) -> list[dict[str, Any]]:
        told = {"nissa.env.id": env}
        steps = range(self.steps)
        train, validation = told | {"nissa.phase": "train"}, told | {"nissa.phase": "validation"}
        return [
            otlp.gauge("nissa.step", [(at(step), float(step)) for step in steps], told),
            otlp.gauge("nissa.loss", [(at(step), "NaN" if step == 7 else falling(step)) for step in steps], train),
            otlp.gauge("nissa.loss", [(at(step) + 1, falling(step) + 0.1) for step in self._epochs], validation),
            otlp.gauge("nissa.accuracy", [(at(step) + 1, 1 - falling(step) / 3) for step in self._epochs], validation),
            otlp.gauge("nissa.learning_rate", [(at(step), 0.01) for step in steps], told),
            otlp.gauge("nissa.gradient.health", [(at(step), 0.9) for step in steps], told),
        ]

    def _gradients(self, env: str) -> list[dict[str, Any]]:
        found = []
        for number in range(self.parameters):
            told = {"nissa.env.id": env, "nissa.parameter.name": f"block.{number}{self.mark}.weight"}
            norms = [(at(step), magnitude(step, number)) for step in self._samples]
            found.append(otlp.gauge("nissa.gradient.norm", norms, told))
            for level in (0.01, 0.25, 0.5, 0.75, 0.99):
                quantile = [(time, value * level / 10) for time, value in norms]
                found.append(otlp.gauge("nissa.gradient.quantile", quantile, told | {"nissa.quantile": f"{level:g}"}))
            found.append(otlp.exponential("nissa.gradient.magnitude", self._magnitudes(number), told))
        return found

    def _magnitudes(self, number: int) -> list[tuple[int, int, int, list[int]]]:
        return [
            (at(step), 2, -40 + number % 5, [(step + 1) * (1 + (bucket * 7 + number) % 11) for bucket in range(60)])
            for step in range(14, self.steps, 15)
        ]

    def _seeds(self, env: str) -> Iterator[str]:
        trace, about = f"trace-{env}", self._seed(env)
        root = f"root-{env}"
        yield self._span("seed.started", 5, 5, about | {"nissa.span.pending": True}, trace, f"{root}-s", root)
        for label, start, end in (("germinated", 5, 6), ("training", 6, 30), ("blending", 30, 45)):
            told = about | {"nissa.seed.stage": label}
            own = f"{label}-{env}"
            pending = told | {"nissa.span.pending": True}
            yield self._span(f"seed.{label}.started", start, start, pending, trace, f"{own}-s", own)
            if self.ended or label != "blending":
                yield self._span(f"seed.{label}", start, end, told, trace, own, root)
        if self.ended:
            kept = env == self.envs[0]
            outcome = {"nissa.seed.outcome": "fossilized" if kept else "culled", "nissa.seed.epochs": 4}
            why = {} if kept else {"nissa.seed.cull_reason": f"no gain{self.mark}"}
            worth = {"nissa.seed.improvement": 0.025 if kept else -0.01}
            label = str(outcome["nissa.seed.outcome"])
            yield self._span(f"seed.{label}", 45, 45, about, trace, f"{label}-{env}", root)
            yield self._span("seed", 5, 45, about | outcome | why | worth, trace, root)

    def _span(
        self, name: str, start: int, end: int, told: dict[str, Any], trace: str, own: str, parent: str = ""
    ) -> str:
        span = otlp.span(name, at(start), at(end), told, trace=trace, own=own, parent=parent)
        return otlp.spans(span, resource=self._resource)

    def _seed(self, env: str) -> dict[str, Any]:
        return {
            "nissa.env.id": env,
            "nissa.seed.id": f"seed{env}{self.mark}",
            "nissa.seed.slot": f"r0c0{self.mark}",
            "nissa.blueprint.id": f"conv{self.mark}",
            "nissa.seed.parameters": 4800,
            "nissa.seed.attempt": 0,
        }

    def _logs(self) -> Iterator[str]:
        yield self._record("nissa.event.training_started", 0)
        for env in self.envs:
            about = {"nissa.env.id": env}
            flag = about | {"nissa.red_flag.name": f"loss_spike{self.mark}", "nissa.finding.advice": "Look at it."}
            yield self._record(
                "nissa.event.red_flag_raised",
                20,
                flag | {"nissa.event.step": 20},
                body="Loss spike. Look at it.",
                severity=13,
            )
            yield self._record("nissa.event.red_flag_cleared", 25, flag)
            for name, time, passed in (("G1", 6, True), ("G2", 20, False), ("G2", 30, True)):
                gate = self._seed(env) | {"nissa.gate.name": name, "nissa.gate.passed": passed, "nissa.gate.score": 0.5}
                failed = {} if passed else {"nissa.gate.checks_failed": [f"gain{self.mark}_0.10%"]}
                yield self._record("nissa.seed.gate", time, gate | failed, trace=f"trace-{env}")
            for epoch, step in enumerate(self._epochs):
                yield self._record(
                    "nissa.narrative", step, about | {"nissa.epoch": epoch}, body=f"Loss improving{self.mark} | Fine"
                )
        if self.ended:
            yield self._record("nissa.event.training_ended", self.steps, {"nissa.event.exit_status": 0})

    def _record(self, name: str, step: int, told: dict[str, Any] | None = None, **more: Any) -> str:
        return otlp.logs(otlp.record(name, at(step), told or {}, **more), resource=self._resource)


def at(step: int) -> int:
    """Return the time of a step."""
    return BEGIN + step * SECOND


def falling(step: int) -> float:
    """Return a loss."""
    return 2.0 / (1 + step / 20) + 0.05 * math.sin(step)


def magnitude(step: int, number: int) -> float:
    """Return a norm."""
    return 10 ** (math.sin(step / 9 + number) - 1)
