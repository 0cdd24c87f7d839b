"""All rules of one environment, and their findings.

Steps and samples are judged on the worker thread, validations on the training thread. Only the worker uses the rules of a
watch, so these judge without a lock. Flags and findings are read and changed by both threads, so a lock protects them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from nissa.diagnostics.blocks import replica_blocks, sample_blocks, skip_blocks, step_blocks
from nissa.diagnostics.contracts import CONTRACTS
from nissa.diagnostics.contracts.of_ranks import REPLICA_CONTRACTS
from nissa.diagnostics.finding import Certainty, Finding
from nissa.diagnostics.loss_tracker import Beginning
from nissa.diagnostics.rule import Judgement, Latch, Rule, Symptom
from nissa.diagnostics.rules import RULES
from nissa.hub.critical import CriticalSections
from nissa.hub.measurements import StepSkipped

if TYPE_CHECKING:
    from nissa.config.sections import DiagnosticsConfig
    from nissa.diagnostics.blocks import ReplicaBlock, SampleBlock, SkipBlock, StepBlock
    from nissa.diagnostics.snapshot import EpochSnapshot
    from nissa.hub.measurements import GradientsMeasured, ReplicasCompared, StepMeasured

_KINDS: Final = ("steps", "samples", "skips", "replicas", "epoch")
_ALL: "Final[tuple[type[Rule], ...]]" = (*REPLICA_CONTRACTS, *CONTRACTS, *RULES)
_ORDER: Final = {rule.name: position for position, rule in enumerate(_ALL)}


@dataclass(slots=True, eq=False)
class _Watched:
    """Rule for one kind of measurement, with its flag.

    Args:
        model: Name of the watch; None for a single watch and for validations.
        finding: The newest finding while the flag is up.
        first_step: Step of the first bad judgement in a row.
        pending: State of the flag after the changes that were processed so far. The latch is ahead of it while the blocks
            of several watches are judged one after the other.
        announced: Whether the flag is exported as raised: it is pending, and no raised contract explains it.
    """

    rule: Rule
    latch: Latch
    model: str | None = None
    finding: Finding | None = None
    first_step: int | None = None
    pending: bool = False
    announced: bool = False

    def begin(self, judgement: Judgement, step: int | None, *, changed: bool) -> None:
        """Store the step of the first of several bad judgements in a row; a flag that is up keeps its first step."""
        if isinstance(judgement, Symptom) and self.latch.bad == 1 and (changed or not self.latch.raised):
            self.first_step = step


@dataclass(frozen=True, slots=True)
class _Change:
    """Change of a flag, before the changes of all watches are put in order."""

    finding: Finding
    watched: _Watched


class _Part(NamedTuple):
    """Steps of one judgement, and the skipped steps after them."""

    steps: "list[StepMeasured]"
    skips: "list[StepSkipped]"


def _between_skips(steps: "Sequence[StepMeasured]", skips: "Sequence[StepSkipped]") -> list[_Part]:
    """Divide steps where others were skipped, so that rules that judge both see them in the order of their time.

    Steps that were skipped at the time of a completed one came before it.
    """
    parts = [_Part([], [])]
    everything: list[StepMeasured | StepSkipped] = [*skips, *steps]
    if skips:
        everything.sort(key=lambda each: each.time_unix_nano)
    for measured in everything:
        if isinstance(measured, StepSkipped):
            parts[-1].skips.append(measured)
        else:
            if parts[-1].skips:
                parts.append(_Part([], []))
            parts[-1].steps.append(measured)
    return parts


class RuleBook:
    """Rules of one environment.

    Args:
        config: Thresholds of the rules.
        sections: Critical sections that the lock belongs to, by default new ones.
    """

    def __init__(self, config: "DiagnosticsConfig", sections: CriticalSections | None = None) -> None:
        self._config = config
        self._sections = sections or CriticalSections()
        # Protects flags and findings: the worker thread and the training thread change them.
        self._lock = self._sections.lock("rules")
        self._beginning = Beginning(config.rules.warm_up)
        self._models: dict[str | None, dict[str, list[_Watched]]] = {}
        self._whole = self._watch()["epoch"]

    def judge(
        self,
        steps: "Sequence[StepMeasured]",
        samples: "Sequence[GradientsMeasured]",
        skips: "Sequence[StepSkipped]" = (),
    ) -> list[Finding]:
        """Judge measurements; return the findings that changed. Not thread-safe: call from one thread.

        Each watch is judged in blocks, but the result does not depend on how measurements were divided between calls:
        findings are in the order of their time, and those of one time in the order of ``steps``.
        """
        self._begin(steps)
        order: dict[tuple[str | None, int], int] = {}
        for position, step in enumerate(steps):
            order.setdefault((step.model_name, step.time_unix_nano), position)
        everything: list[StepMeasured | GradientsMeasured | StepSkipped] = [*steps, *samples, *skips]
        watches = list(dict.fromkeys(each.model_name for each in everything))

        def watch_of(measurement: "StepMeasured | GradientsMeasured | StepSkipped") -> int:
            return watches.index(measurement.model_name)

        changes: list[_Change] = []
        for part in _between_skips(steps, skips):  # a rule that judges both sees them in the order of their time
            for step_block in step_blocks(sorted(part.steps, key=watch_of)):
                changes += self._steps(step_block)
            for skip_block in skip_blocks(sorted(part.skips, key=watch_of)):
                changes += self._skips(skip_block)
        for sample_block in sample_blocks(sorted(samples, key=watch_of)):
            changes += self._samples(sample_block)

        def place(change: _Change) -> tuple[int, int]:
            found = change.finding
            return found.time_unix_nano, order.get((found.model_name, found.time_unix_nano), len(order))

        with self._sections, self._lock:
            return [found for change in sorted(changes, key=place) for found in self._announce(change)]

    def compared(self, comparisons: "Sequence[ReplicasCompared]") -> list[Finding]:
        """Judge comparisons with other ranks; return the findings that changed. Call from the thread of `judge`.

        Those of a watch that has ended are left out.
        """
        open_ = [each for each in comparisons if each.model_name in self._models]
        changes = [change for block in replica_blocks(open_) for change in self._replicas(block)]
        with self._sections, self._lock:
            return [found for change in changes for found in self._announce(change)]

    def epoch(self, snapshot: "EpochSnapshot") -> list[Finding]:
        """Judge a validation; return the findings that changed."""
        where = {"epoch": snapshot.epoch, "time_unix_nano": snapshot.time_unix_nano or 0}
        with self._sections, self._lock:
            changes = [change for each in self._whole if (change := self._validated(each, snapshot, where))]
            return [found for change in changes for found in self._announce(change)]

    @property
    def first_loss(self) -> float | None:
        """Median of the first losses of the environment, before all are known the first one; None if too many were lost."""
        return self._beginning.start if self._beginning.level is None else self._beginning.level

    def _begin(self, steps: "Sequence[StepMeasured]") -> None:
        for step in steps if not self._beginning.over else ():
            if step.primary:
                if step.missed:
                    self._beginning.lose(step.missed)
                if step.loss is not None and isfinite(step.loss):
                    self._beginning.feed(step.loss)

    @property
    def flags(self) -> dict[str, bool]:
        """State of each flag that was judged so far, worst first; True is up and not explained by a raised contract."""
        with self._sections, self._lock:
            judged = [(each.rule.name, each.announced) for each in self._all() if each.latch.judged]
        raised = {name for name, up in judged if up}
        return {name: name in raised for name in sorted({name for name, _ in judged}, key=_ORDER.__getitem__)}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Findings whose flag is up, worst first, and those of one rule in the order of their watches."""
        with self._sections, self._lock:
            raised = [each.finding for each in self._all() if each.announced and each.finding is not None]
        return tuple(sorted(raised, key=lambda finding: _ORDER[finding.name]))

    def forget(self, model_name: str | None) -> None:
        """Remove the rules of a watch that has ended. Call from the thread of `steps`."""
        with self._sections, self._lock:
            self._models.pop(model_name, None)

    def _steps(self, block: "StepBlock") -> list[_Change]:
        watched = self._of(block.model_name)["steps"]
        with np.errstate(all="ignore"):
            judged = [each.rule.steps(block) for each in watched]
        return self._changes(watched, judged, block)

    def _samples(self, block: "SampleBlock") -> list[_Change]:
        watched = self._of(block.model_name)["samples"]
        with np.errstate(all="ignore"):
            judged = [each.rule.samples(block) for each in watched]
        return self._changes(watched, judged, block)

    def _skips(self, block: "SkipBlock") -> list[_Change]:
        watched = self._of(block.model_name)["skips"]
        return self._changes(watched, [each.rule.skips(block) for each in watched], block)

    def _replicas(self, block: "ReplicaBlock") -> list[_Change]:
        watched = self._of(block.model_name)["replicas"]
        return self._changes(watched, [each.rule.replicas(block) for each in watched], block)

    def _validated(self, watched: _Watched, snapshot: "EpochSnapshot", where: Mapping[str, object]) -> _Change | None:
        judgement = watched.rule.epoch(snapshot)
        if judgement is None and snapshot.incomplete:  # with complete numbers, it might have been judged
            watched.latch.interrupt()
        changed = watched.latch.changes(judgement)
        if not (changed or isinstance(judgement, Symptom)):
            return None
        watched.begin(judgement, snapshot.step, changed=changed)
        found = _describe(watched, judgement, where)
        return _Change(found, watched) if changed and found else None

    def _announce(self, change: _Change) -> list[Finding]:
        """Apply a change of a flag, and return the findings that change with it.

        While a contract is raised, rules that would attribute its symptoms to another cause are not: their flags are
        lowered when it is raised, and raised again when it is cleared, if the symptoms last.
        """
        watched, found = change.watched, change.finding
        watched.pending = found.raised
        findings = self._set(watched, found)
        if watched.rule.explains and watched.announced == watched.pending:
            findings += [each for other in self._all() for each in self._reconsider(other, found)]
        return findings

    def _set(self, watched: _Watched, found: Finding) -> list[Finding]:
        """Export a flag as pending, or as lowered if a contract explains it; return the finding if it changes."""
        up = watched.pending and self._cause(watched) is None
        if up == watched.announced:
            return []
        watched.announced = up
        anywhere = any(each.announced for each in self._all() if each.rule.name == found.name)
        return [replace(found, up=anywhere)]

    def _reconsider(self, watched: _Watched, changed: Finding) -> list[Finding]:
        """Apply a change of a contract to a flag that it explains."""
        if not watched.pending or watched.finding is None or watched.rule.name == changed.name:
            return []
        where = {name: getattr(changed, name) for name in ("step", "epoch", "time_unix_nano")}
        where["model_name"] = watched.finding.model_name
        if self._cause(watched) is None:
            return self._set(watched, replace(watched.finding, **where))
        return self._set(watched, _over(watched.rule, where, f"Explained by {changed.name.replace('_', ' ')}"))

    def _cause(self, watched: _Watched) -> str | None:
        """Return the raised contract that explains a rule's symptoms in the same model; None without one."""
        name = watched.rule.name
        causes = (each for each in self._all() if each.announced and name in each.rule.explains)
        return next((each.rule.name for each in causes if each.model == watched.model or _whole(each, watched)), None)

    def _changes(
        self,
        watched: list[_Watched],
        judged: list[Sequence[Judgement]],
        block: "StepBlock | SampleBlock | SkipBlock | ReplicaBlock",
    ) -> list[_Change]:
        """Apply judgements to their flags; return the changes ordered by entry, then by rule."""
        missed, changes = block.missed.tolist(), list[tuple[int, _Change]]()
        with self._sections, self._lock:
            for each, judgements in zip(watched, judged, strict=True):
                for row, (judgement, lost) in enumerate(zip(judgements, missed, strict=True)):
                    if lost:
                        each.latch.interrupt()
                    if judgement is None:  # of most rules and steps
                        continue
                    changed = each.latch.changes(judgement)
                    # Skip the rest for the common judgement, which neither changes a flag nor describes one that is up.
                    if changed or isinstance(judgement, Symptom):
                        each.begin(judgement, int(block.steps[row]), changed=changed)
                        found = _describe(each, judgement, _where(block, row))
                        changes += [(row, _Change(found, each))] if changed and found else []
        return [change for _, change in sorted(changes, key=lambda pair: pair[0])]

    def _of(self, model_name: str | None) -> dict[str, list[_Watched]]:
        with self._sections, self._lock:
            if model_name not in self._models:
                self._models[model_name] = self._watch(model_name)
            return self._models[model_name]

    def _watch(self, model_name: str | None = None) -> dict[str, list[_Watched]]:
        """Return a new instance of each rule, with a flag per kind of measurement that it judges."""
        watched: dict[str, list[_Watched]] = {kind: [] for kind in _KINDS}
        for make in _ALL if self._config.contracts else (*REPLICA_CONTRACTS, *RULES):
            rule = make(self._config)
            shared = _Watched(rule, self._latch("steps", rule), model_name) if rule.one_flag else None
            for kind in _KINDS:
                if getattr(make, kind) is not getattr(Rule, kind):
                    watched[kind].append(shared or _Watched(rule, self._latch(kind, rule), model_name))
        return watched

    def _latch(self, kind: str, rule: Rule) -> Latch:
        rules = self._config.rules
        if kind == "epoch":  # validations are few, so do not wait for many of them
            return Latch(confirmations=1 if rule.immediate else rules.validations, recoveries=1, cooldown=0)
        if kind == "replicas":  # comparisons of bits are few and exact
            return Latch(confirmations=1, recoveries=1, cooldown=0)
        confirmations = 1 if rule.immediate else rules.confirmations
        return Latch(confirmations=confirmations, recoveries=rules.recoveries, cooldown=rules.cooldown)

    def _all(self) -> list[_Watched]:
        kinds = ("steps", "samples", "skips", "replicas")
        models = [each for watched in self._models.values() for kind in kinds for each in watched[kind]]
        return list(dict.fromkeys([*models, *self._whole]))


def _where(block: "StepBlock | SampleBlock | SkipBlock | ReplicaBlock", row: int) -> dict[str, object]:
    return {
        "model_name": block.model_name,
        "step": int(block.steps[row]),
        "time_unix_nano": int(block.times[row]),
    }


def _whole(a: _Watched, b: _Watched) -> bool:
    """Whether one of two flags is about the environment as a whole, so that they concern each other."""
    return a.model is None or b.model is None


def _describe(watched: _Watched, judgement: Judgement, where: Mapping[str, object]) -> Finding | None:
    """Return the finding of a flag after its newest judgement: the trouble while it is up, else its end."""
    if not watched.latch.raised:
        return _over(watched.rule, where)
    if isinstance(judgement, Symptom):
        watched.finding = _finding(watched.rule, judgement, where, watched.first_step)
    return watched.finding


def _finding(rule: Rule, symptom: Symptom, where: Mapping[str, object], first_step: int | None) -> Finding:
    return Finding(
        name=rule.name,
        raised=True,
        seen=symptom.seen,
        certainty=symptom.certainty,
        advice=symptom.advice or rule.advice,
        severity=rule.severity,
        layers=symptom.layers,
        value=symptom.value,
        limit=symptom.limit,
        evidence=symptom.evidence,
        first_step=first_step,
        **where,  # type: ignore[arg-type]  # names and types are those of the caller above
    )


def _over(rule: Rule, where: Mapping[str, object], seen: str | None = None) -> Finding:
    words = rule.name.replace("_", " ")
    return Finding(
        name=rule.name,
        raised=False,
        seen=seen or f"No more {words}",
        certainty=Certainty.LIKELY,
        advice="Nothing to do.",
        **where,  # type: ignore[arg-type]  # see above
    )
