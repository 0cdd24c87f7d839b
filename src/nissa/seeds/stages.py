"""Stage table: the allowed transitions, from which checks, messages and the diagram in the docs are derived."""

from functools import cache
from typing import Final

from nissa.events import EventType, Stage

TRANSITIONS: Final[dict[Stage, tuple[Stage, ...]]] = {
    Stage.UNKNOWN: (Stage.DORMANT,),
    Stage.DORMANT: (Stage.GERMINATED,),
    Stage.GERMINATED: (Stage.TRAINING, Stage.CULLED),
    Stage.TRAINING: (Stage.BLENDING, Stage.CULLED),
    Stage.BLENDING: (Stage.SHADOWING, Stage.PROBATIONARY, Stage.CULLED),
    Stage.SHADOWING: (Stage.PROBATIONARY, Stage.CULLED),
    Stage.PROBATIONARY: (Stage.FOSSILIZED, Stage.BLENDING, Stage.CULLED),
    Stage.FOSSILIZED: (),
    Stage.CULLED: (Stage.EMBARGOED,),
    Stage.EMBARGOED: (Stage.RESETTING,),
    Stage.RESETTING: (Stage.DORMANT,),
}

ALIVE: Final = frozenset({Stage.GERMINATED, Stage.TRAINING, Stage.BLENDING, Stage.SHADOWING, Stage.PROBATIONARY})
"""Stages of a live seed; a life that stops in one of them was interrupted."""

ENDED: Final = frozenset({Stage.FOSSILIZED, Stage.CULLED, Stage.EMBARGOED, Stage.RESETTING})
"""Stages of a seed that was fossilized or culled."""

END_OF: Final[dict[Stage, str]] = {Stage.FOSSILIZED: EventType.SEED_FOSSILIZED, Stage.CULLED: EventType.SEED_CULLED}
"""Event type that ends a life, by final stage."""

STAGE_OF: Final[dict[str, Stage]] = {event_type: stage for stage, event_type in END_OF.items()}
"""Final stage, by event type."""

FINAL: Final = frozenset(END_OF)
"""Stages that end a life."""

GROWING: Final = frozenset({Stage.TRAINING, Stage.BLENDING, Stage.SHADOWING, Stage.PROBATIONARY})
"""Stages in which the gradients of a seed are compared with those of its host."""

BLENDED: Final = frozenset({Stage.BLENDING, Stage.SHADOWING, Stage.PROBATIONARY, Stage.FOSSILIZED})
"""Stages in which a seed contributes to the output of its host."""

MOMENTARY: Final = frozenset({Stage.CULLED, Stage.DORMANT})
"""Stages exported as an instant: a life has no duration in them."""

_IMPLIED: Final = {
    (Stage.BLENDING, Stage.FOSSILIZED): (Stage.PROBATIONARY,),
    (Stage.SHADOWING, Stage.FOSSILIZED): (Stage.PROBATIONARY,),
}


@cache
def path(current: Stage, target: Stage) -> tuple[Stage, ...]:
    """Return the stages to enter, in order, to get from one stage to another; empty if not allowed.

    Fossilizing a blended seed implies the skipped probation, so that every trace has one.
    """
    between = _IMPLIED.get((current, target), ())
    steps = (*between, target)
    legal = all(after in TRANSITIONS[before] for before, after in zip((current, *between), steps, strict=True))
    return steps if legal else ()


def refusal(current: Stage, target: Stage) -> str:
    """Return the message for a forbidden transition, with the allowed ones."""
    legal = ", ".join(stage.name for stage in TRANSITIONS[current]) or "none, it is terminal"
    return f"{current.name} -> {target.name} is not allowed; from {current.name} the legal stages are: {legal}."


def mermaid() -> str:
    """Return the table as a Mermaid state diagram."""
    arrows = [f"    {before.name} --> {after.name}" for before, afters in TRANSITIONS.items() for after in afters]
    return "\n".join(["stateDiagram-v2", *arrows]) + "\n"
