"""What a policy or a language model is told, against its published schema."""

import json
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nissa import DecisionBrief, EpochSnapshot
from nissa.config import TelemetryConfig
from nissa.diagnostics.brief import decision_brief
from nissa.diagnostics.finding import Certainty, Finding
from nissa.diagnostics.observations import Observations
from nissa.diagnostics.seed_findings import SeedFinding
from nissa.diagnostics.tracker import DiagnosticTracker
from nissa.hub.measurements import GradientHealth
from scripts.generate import REFERENCE

INF, NAN = float("inf"), float("nan")
SCHEMA = json.loads((REFERENCE / "decision-brief.schema.json").read_text())
FINDING = Finding(
    name="overfitting",
    raised=True,
    seen="Gap 0.90",
    certainty=Certainty.LIKELY,
    advice="Stop earlier.",
    layers=tuple("abcdefg"),
    evidence=("gap=0.9",),
    step=7,
    first_step=5,
    value=INF,
    limit=0.5,
)


class Action(IntEnum):
    GERMINATE = 3


def strict(brief: DecisionBrief) -> Any:
    return json.loads(brief.model_dump_json(), parse_constant=pytest.fail)


KINDS: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": int | float,
    "null": type(None),
    "array": list,
    "object": dict,
}


def conforms(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is what a schema of the kind that pydantic writes describes."""
    if "$ref" in schema:
        return conforms(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return any(conforms(value, each) for each in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    right = isinstance(value, KINDS[schema["type"]]) and not isinstance(value, bool)
    if right and isinstance(value, list):
        return all(conforms(each, schema["items"]) for each in value)
    return _has_properties(value, schema) if right and isinstance(value, dict) else right


def _has_properties(value: dict[str, Any], schema: dict[str, Any]) -> bool:
    others, known = schema["additionalProperties"], schema.get("properties", {})
    if not set(schema.get("required", ())) <= set(value) or not (others or set(value) <= set(known)):
        return False
    return all(conforms(each, known.get(name, others)) for name, each in value.items())


def test_it_says_what_the_newest_snapshot_says() -> None:
    snapshot = EpochSnapshot(
        epoch=4,
        env_id="7",
        validation_loss=0.5,
        validation_accuracy=0.0,
        plateau_length=3,
        gradient_health=GradientHealth(score=0.5, global_norm=2.0, layers=4, vanishing=("a", "b")),
        sharpness={"critical": 3.0},
        seeds=(SeedFinding(seed_id="s", stage="culled", sentence="s culled"),),
        narrative="Loss plateaued",
        red_flags=("sustained_plateau",),
        opportunities=("stable_training",),
    )
    found = strict(decision_brief(Action.GERMINATE, "it stalls", snapshot, (FINDING,), validations=5))
    metrics = {name: each for name, each in found.pop("key_metrics").items() if each is not None}
    assert metrics == {
        "validation_loss": 0.5,
        "validation_accuracy": 0.0,
        "plateau_length": 3,
        "sharpness": {"critical": 3.0},
    }
    assert found == {
        "schema_version": 1,
        "action": "GERMINATE",
        "reason": "it stalls",
        "env_id": "7",
        "epoch": 4,
        "validations": 5,
        "narrative": "Loss plateaued",
        "red_flags": ["sustained_plateau"],
        "opportunities": ["stable_training"],
        "gradient_health": {
            "score": 0.5,
            "global_norm": 2.0,
            "layers": 4,
            "vanishing": 2,
            "exploding": 0,
            "nonfinite": 0,
        },
        "seeds": ["s culled"],
        "findings": [
            {
                "name": "overfitting",
                "seen": "Gap 0.90",
                "certainty": "likely",
                "advice": "Stop earlier.",
                "severity": "warning",
                "layers": ["a", "b", "c", "d", "e", "f", "g"],
                "value": "Infinity",
                "limit": 0.5,
                "evidence": ["gap=0.9"],
                "step": 7,
                "first_step": 5,
            }
        ],
    }


def test_before_the_first_validation_it_says_so() -> None:
    found = DiagnosticTracker(TelemetryConfig.research()).brief(action="wait")
    assert (found.action, found.reason, found.validations) == ("wait", None, 0)
    assert found.narrative == "No validation yet"
    assert (found.red_flags, found.gradient_health, found.key_metrics.validation_loss) == ((), None, None)


def test_a_tracker_counts_validations_beyond_its_history() -> None:
    tracker = DiagnosticTracker(TelemetryConfig.minimal())
    for epoch in range(7):
        tracker.diagnose(Observations(epoch=epoch, validation_loss=NAN))
    found = tracker.brief(action="germinate", reason="r")
    assert (found.validations, found.epoch) == (7, 6)
    assert found.key_metrics.validation_loss == "NaN"
    assert found.red_flags == ("nonfinite_loss",)


@given(number=st.none() | st.floats(), action=st.text(), reason=st.none() | st.text())
def test_every_brief_is_strict_json_that_fits_the_schema(number: float | None, action: str, reason: str | None) -> None:
    snapshot = EpochSnapshot(
        epoch=1,
        validation_loss=number,
        loss_noise=number,
        gradient_health=GradientHealth(score=number, global_norm=number, layers=1),
        sharpness={} if number is None else {"critical": number},
    )
    brief = decision_brief(action, reason, snapshot, (FINDING,), validations=1)
    assert conforms(strict(brief), SCHEMA)
    assert DecisionBrief.model_validate_json(brief.model_dump_json()) == brief


def test_the_schema_is_not_satisfied_by_anything() -> None:
    brief = strict(decision_brief("a", None, None, validations=0))
    assert conforms(brief, SCHEMA)
    wrong: list[dict[str, Any]] = [
        {"action": 3},
        {"validations": 0.5},
        {"mood": "good"},
        {"key_metrics": {"train_loss": "much"}},
    ]
    assert [conforms(brief | each, SCHEMA) for each in wrong] == [False] * len(wrong)


def test_a_brief_does_not_change() -> None:
    brief = decision_brief("a", None, None, validations=0)
    with pytest.raises(ValidationError, match="frozen"):
        brief.action = "b"
