"""All rules of one environment, and what they found.

Steps and gradients arrive on the reader's thread, validations on that of training; a lock keeps them apart.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final

from nissa.diagnostics.finding import Certainty, Finding
from nissa.diagnostics.rule import Judgement, Latch, Rule, Symptom
from nissa.diagnostics.rules import RULES

if TYPE_CHECKING:
    from nissa.diagnostics.snapshot import EpochSnapshot
    from nissa.hub.measurements import GradientsMeasured, StepMeasured
    from nissa.profiles.sections import DiagnosticsConfig

_KINDS: Final = ("step", "gradients", "epoch")


@dataclass(slots=True)
class _Watched:
    """A rule that looks at one kind of thing, with its flag."""

    rule: Rule
    latch: Latch
    judge: Callable[..., Judgement]
    finding: Finding | None = None


class RuleBook:
    """The rules of one environment.

    Args:
        config: Their thresholds.
    """

    def __init__(self, config: "DiagnosticsConfig") -> None:
        self._config = config
        self._lock = Lock()
        self._models: dict[str | None, dict[str, list[_Watched]]] = {}
        self._whole = self._watch()["epoch"]

    def step(self, step: "StepMeasured") -> list[Finding]:
        """Judge a step; return what changed."""
        with self._lock:
            watched = self._of(step.model_name)["step"]
            where = {"model_name": step.model_name, "step": step.step, "time_unix_nano": step.time_unix_nano}
            return [found for each in watched if (found := self._judge(each, step, where))]

    def gradients(self, sample: "GradientsMeasured") -> list[Finding]:
        """Judge the gradients of a sampled step; return what changed."""
        with self._lock:
            watched = self._of(sample.model_name)["gradients"]
            where = {"model_name": sample.model_name, "step": sample.step, "time_unix_nano": sample.time_unix_nano}
            return [found for each in watched if (found := self._judge(each, sample, where))]

    def epoch(self, snapshot: "EpochSnapshot") -> list[Finding]:
        """Judge a validation; return what changed."""
        with self._lock:
            where = {"epoch": snapshot.epoch, "time_unix_nano": snapshot.time_unix_nano or 0}
            return [found for each in self._whole if (found := self._judge(each, snapshot, where))]

    @property
    def flags(self) -> dict[str, bool]:
        """Each flag that could be judged so far with whether it is up, worst first."""
        with self._lock:
            judged: dict[str, bool] = {}
            for each in self._all():
                if each.latch.judged:
                    judged[each.rule.name] = judged.get(each.rule.name, False) or each.latch.raised
        return {rule.name: judged[rule.name] for rule in RULES if rule.name in judged}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong now, worst first."""
        with self._lock:
            raised = [each.finding for each in self._all() if each.latch.raised and each.finding is not None]
        order = [rule.name for rule in RULES]
        return tuple(sorted(raised, key=lambda finding: order.index(finding.name)))

    def forget(self, model_name: str | None) -> None:
        """Forget a model that is no longer watched."""
        with self._lock:
            self._models.pop(model_name, None)

    def _of(self, model_name: str | None) -> dict[str, list[_Watched]]:
        if model_name not in self._models:
            self._models[model_name] = self._watch()
        return self._models[model_name]

    def _watch(self) -> dict[str, list[_Watched]]:
        """Return a fresh instance of each rule, with a flag per kind of thing that it looks at."""
        watched: dict[str, list[_Watched]] = {kind: [] for kind in _KINDS}
        for make in RULES:
            rule = make(self._config)
            for kind in _KINDS:
                if getattr(make, kind) is not getattr(Rule, kind):
                    watched[kind].append(_Watched(rule, self._latch(kind, rule), getattr(rule, kind)))
        return watched

    def _latch(self, kind: str, rule: Rule) -> Latch:
        rules = self._config.rules
        if kind == "epoch":  # of which there are few
            return Latch(confirmations=1 if rule.immediate else rules.validations, recoveries=1, cooldown=0)
        confirmations = 1 if rule.immediate else rules.confirmations
        return Latch(confirmations=confirmations, recoveries=rules.recoveries, cooldown=rules.cooldown)

    def _all(self) -> list[_Watched]:
        models = [each for kinds in self._models.values() for each in (*kinds["step"], *kinds["gradients"])]
        return [*models, *self._whole]

    def _judge(self, watched: _Watched, seen: object, where: Mapping[str, object]) -> Finding | None:
        judgement = watched.judge(seen)
        changed = watched.latch.changes(judgement)
        if watched.latch.raised and isinstance(judgement, Symptom):
            watched.finding = _finding(watched.rule, judgement, where)
        if not changed:
            return None
        return watched.finding if watched.latch.raised else _over(watched.rule, where)


def _finding(rule: Rule, symptom: Symptom, where: Mapping[str, object]) -> Finding:
    return Finding(
        name=rule.name,
        raised=True,
        seen=symptom.seen,
        certainty=symptom.certainty,
        advice=rule.advice,
        severity=rule.severity,
        layers=symptom.layers,
        value=symptom.value,
        limit=symptom.limit,
        **where,  # type: ignore[arg-type]  # names and types are those of the caller above
    )


def _over(rule: Rule, where: Mapping[str, object]) -> Finding:
    words = rule.name.replace("_", " ")
    return Finding(
        name=rule.name,
        raised=False,
        seen=f"No more {words}",
        certainty=Certainty.LIKELY,
        advice="Nothing to do.",
        **where,  # type: ignore[arg-type]  # see above
    )
