"""Decision brief: numbers and findings for a policy or a language model, as data with a published schema.

The schema is ``docs/reference/decision-brief.schema.json``. A brief is plain JSON, so NaN and infinity are text.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from nissa.diagnostics.finding import MOST_LAYERS
from nissa.events import json_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nissa.diagnostics.finding import Finding
    from nissa.diagnostics.snapshot import EpochSnapshot

NO_VALIDATION = "No validation yet"
"""Narrative of a brief before the first validation."""


def _json_number(value: object) -> object:
    return json_number(value) if isinstance(value, float) else value


Number = Annotated[float | Literal["NaN", "Infinity", "-Infinity"], BeforeValidator(_json_number)]
"""A finite number, or the text of a value that JSON numbers exclude."""


class _BriefModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class KeyMetrics(_BriefModel):
    """Values of the newest validation; null if not measured."""

    train_loss: Number | None = None
    """Mean of the losses logged in the epoch."""

    validation_loss: Number | None = None
    """Validation loss."""

    loss_delta: Number | None = None
    """Change of the validation loss since the previous validation."""

    best_loss: Number | None = None
    """Lowest validation loss so far."""

    train_accuracy: Number | None = None
    """Training accuracy as a fraction."""

    validation_accuracy: Number | None = None
    """Validation accuracy as a fraction."""

    accuracy_delta: Number | None = None
    """Change of the validation accuracy since the previous validation."""

    best_accuracy: Number | None = None
    """Highest validation accuracy so far."""

    train_validation_gap: Number | None = None
    """Validation loss minus training loss."""

    plateau_length: int = 0
    """Epochs in which the validation loss did not move."""

    loss_noise: Number | None = None
    """Standard deviation of the losses logged in the epoch."""

    learning_rate: Number | None = None
    """Learning rate of the newest step."""

    class_variance: Number | None = None
    """Population variance of the per-class accuracies."""

    sharpness: dict[str, Number] = Field(default_factory=dict)
    """Sharpness by method, for the methods measured."""

    stability_margin: Number | None = None
    """Learning rate over the critical one; above 1 the next step raises the loss of its batch."""


class HealthBrief(_BriefModel):
    """Health of the newest gradients."""

    score: Number | None = None
    """0 (broken) to 1 (healthy); null if no layer had a gradient."""

    global_norm: Number | None = None
    """L2 norm over all layers."""

    layers: int
    """Number of layers with a gradient."""

    vanishing: int
    """Number of layers whose gradient vanishes."""

    exploding: int
    """Number of layers whose gradient explodes."""

    nonfinite: int
    """Number of layers with NaN or infinite gradient elements."""


class FindingBrief(_BriefModel):
    """Finding of one rule."""

    name: str
    """Name of the red flag."""

    seen: str
    """Description of the observation."""

    certainty: str
    """Certainty of the finding: certain, likely or possible."""

    advice: str
    """Suggested remedy."""

    severity: str
    """Severity: debug, info, warning, error or critical."""

    layers: tuple[str, ...] = ()
    """Layers concerned, worst first, at most 20."""

    value: Number | None = None
    """Value that was judged; null if there is no single number."""

    limit: Number | None = None
    """Limit that the value was compared with."""

    evidence: tuple[str, ...] = ()
    """Further facts and numbers that the finding rests on, each as ``name=value``."""

    step: int | None = None
    """Step of the newest measurement that was judged; null for findings at a validation."""

    first_step: int | None = None
    """Step at which the trouble was first seen; null if no step is known."""


class DecisionBrief(_BriefModel):
    """State of training as input of a decision."""

    schema_version: Literal[1] = 1
    """Version of the schema; another number means other fields or meanings."""

    action: str
    """Action to be taken, or already taken."""

    reason: str | None = None
    """Reason for the action, in the words of the decision maker."""

    env_id: str | None = None
    """Environment; null if there is only one."""

    epoch: int | None = None
    """Epoch of the newest validation."""

    validations: int = Field(default=0, ge=0)
    """Number of validations; if 0, no field below is based on one."""

    narrative: str = NO_VALIDATION
    """Description of the training in one line."""

    red_flags: tuple[str, ...] = ()
    """Red flags that are raised, worst first."""

    opportunities: tuple[str, ...] = ()
    """Opportunities for action."""

    gradient_health: HealthBrief | None = None
    """Gradient health; null if no gradients were measured."""

    key_metrics: KeyMetrics = KeyMetrics()
    """Values of the newest validation."""

    seeds: tuple[str, ...] = ()
    """Changes of seeds before the newest validation, most important first."""

    findings: tuple[FindingBrief, ...] = ()
    """Findings that are raised, worst first, with a suggested remedy."""


def decision_brief(
    action: object,
    reason: str | None,
    snapshot: "EpochSnapshot | None",
    findings: "Sequence[Finding]" = (),
    *,
    validations: int,
) -> DecisionBrief:
    """Return the brief of a snapshot; without one, its narrative is `NO_VALIDATION`."""
    fields: dict[str, Any] = {
        "action": str(getattr(action, "name", action)),
        "reason": reason,
        "findings": tuple(map(_finding, findings)),
        "validations": validations,
    }
    return DecisionBrief(**fields if snapshot is None else fields | _of(snapshot))


def _of(snapshot: "EpochSnapshot") -> dict[str, Any]:
    return {
        "env_id": snapshot.env_id,
        "epoch": snapshot.epoch,
        "narrative": snapshot.narrative,
        "red_flags": snapshot.red_flags,
        "opportunities": snapshot.opportunities,
        "gradient_health": _health(snapshot),
        "key_metrics": KeyMetrics(**{name: getattr(snapshot, name) for name in KeyMetrics.model_fields}),
        "seeds": tuple(each.sentence for each in snapshot.seeds),
    }


def _health(snapshot: "EpochSnapshot") -> HealthBrief | None:
    health = snapshot.gradient_health
    if health is None:
        return None
    return HealthBrief(
        score=health.score,
        global_norm=health.global_norm,
        layers=health.layers,
        vanishing=len(health.vanishing),
        exploding=len(health.exploding),
        nonfinite=len(health.nonfinite),
    )


def _finding(finding: "Finding") -> FindingBrief:
    return FindingBrief(
        name=finding.name,
        seen=finding.seen,
        certainty=str(finding.certainty),
        advice=finding.advice,
        severity=str(finding.severity),
        layers=finding.layers[:MOST_LAYERS],
        value=finding.value,
        limit=finding.limit,
        evidence=finding.evidence,
        step=finding.step,
        first_step=finding.first_step,
    )
