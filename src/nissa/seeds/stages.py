"""Which stage may follow which: one table, from which legality, messages and the drawing in the docs are derived."""

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
"""Stages of a seed whose fate is open; a life left in one of them was interrupted."""

ENDED: Final = frozenset({Stage.FOSSILIZED, Stage.CULLED, Stage.EMBARGOED, Stage.RESETTING})
"""Stages of a seed whose fate was decided."""

END_OF: Final[dict[Stage, str]] = {Stage.FOSSILIZED: EventType.SEED_FOSSILIZED, Stage.CULLED: EventType.SEED_CULLED}
"""The type of event that ends a life, by its final stage."""

STAGE_OF: Final[dict[str, Stage]] = {event_type: stage for stage, event_type in END_OF.items()}
"""The final stage, by the type of event."""

FINAL: Final = frozenset(END_OF)
"""Stages that end a life."""

GROWING: Final = frozenset({Stage.TRAINING, Stage.BLENDING, Stage.SHADOWING, Stage.PROBATIONARY})
"""Stages in which the gradients of a seed say how it grows beside its host."""

BLENDED: Final = frozenset({Stage.BLENDING, Stage.SHADOWING, Stage.PROBATIONARY, Stage.FOSSILIZED})
"""Stages in which a seed contributes to the output of its host."""

MOMENTARY: Final = frozenset({Stage.CULLED, Stage.DORMANT})
"""Stages that are shown as a moment: no part of a life lasts in them."""

_IMPLIED: Final = {
    (Stage.BLENDING, Stage.FOSSILIZED): (Stage.PROBATIONARY,),
    (Stage.SHADOWING, Stage.FOSSILIZED): (Stage.PROBATIONARY,),
}


def path(current: Stage, target: Stage) -> tuple[Stage, ...]:
    """Return the stages to enter, in order, to get from one stage to another; empty where that is not allowed.

    Making a blended seed permanent implies the probation that was cut short, so that traces always show one.
    """
    between = _IMPLIED.get((current, target), ())
    steps = (*between, target)
    legal = all(after in TRANSITIONS[before] for before, after in zip((current, *between), steps, strict=True))
    return steps if legal else ()


def refusal(current: Stage, target: Stage) -> str:
    """Say why a transition is not allowed, and which are."""
    legal = ", ".join(stage.name for stage in TRANSITIONS[current]) or "none, it is terminal"
    return f"{current.name} -> {target.name} is not allowed; from {current.name} the legal stages are: {legal}."


def mermaid() -> str:
    """Return the table as a Mermaid state diagram."""
    arrows = [f"    {before.name} --> {after.name}" for before, afters in TRANSITIONS.items() for after in afters]
    return "\n".join(["stateDiagram-v2", *arrows]) + "\n"
