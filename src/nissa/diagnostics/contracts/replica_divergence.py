"""Different weights on ranks that should have equal ones.

Published precedent: a language model was trained for ten days with clipping on one rank of its tensor parallel groups.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from nissa.diagnostics.contracts.contract import Contract, some
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom
from nissa.events import Severity

if TYPE_CHECKING:
    from nissa.diagnostics.blocks import ReplicaBlock
    from nissa.hub.measurements import ReplicasCompared

_RELOAD: Final = "Then load one checkpoint on all ranks: weights that have diverged stay different."

_ADVICE: Final[Mapping[str, str]] = {
    "layout": "Build the same model on all ranks: the parameters named do not have the same shape and dtype everywhere.",
    "skipped_step": "Call optimizer.step() equally often on all ranks: let all decide together whether to skip a step, and share "
    f"one GradScaler state. Join copies weights, but not the state of an optimizer. {_RELOAD}",
    "learning_rate": f"Set the same learning rate on all ranks, and step the scheduler on each. {_RELOAD}",
    "optimizer_settings": f"Give the optimizer the same settings on all ranks; the evidence names those that differ. {_RELOAD}",
    "clipping": "Clip gradients on every rank, with the same max_norm and a norm over the same parameters: those of the minority "
    f"were scaled. {_RELOAD}",
    "unwrapped": "Call the wrapper (DistributedDataParallel) in the training loop, not the module in it: gradients are not averaged "
    f"over ranks. {_RELOAD} For local SGD, pass replicas=None to watch().",
    "unreduced_gradients": "Look for no_sync() around the last backward pass before a step, for a backward pass of a part of the "
    f"model that the wrapper does not see, and for code that changes gradients on some ranks. {_RELOAD}",
    "initial_weights": "Load checkpoints and initialise weights before the model is wrapped, or on all ranks alike.",
    "corruption": "Gradients agree and few parameters differ: look for code that changes these parameters on some ranks. Without "
    "any, suspect the memory of the device of the rank named (ECC counters), and load a checkpoint.",
    "update": "Gradients agree now, and all weights differ: look for a step that some ranks skipped, for optimizer states that were "
    f"loaded on some ranks only, and for clipping that is not the same everywhere. {_RELOAD}",
}

_CERTAIN: Final = frozenset({"layout", "skipped_step", "learning_rate", "optimizer_settings", "initial_weights"})
"""Causes that the ranks themselves state."""

_MOST_RANKS: Final = 8


class ReplicaDivergence(Contract):
    """The weights of ranks that should be replicas are not equal, bit for bit."""

    name = "replica_divergence"
    advice = f"Find out what some ranks do that others do not. {_RELOAD}"
    severity = Severity.ERROR
    observations = 1
    of = "comparisons"
    source = "TrainCheck (Jiang et al., OSDI 2025): DS-1801, clipping on one rank in the training of BLOOM-176B"
    twin = "shards, stages and experts of a rank's own, local SGD with replicas=None, no_sync(), Join, ranks that sample other steps"
    forward = False

    def replicas(self, block: "ReplicaBlock") -> Sequence[Judgement]:
        """Judge each comparison."""
        return [_judged(each) for each in block.entries]


def _judged(seen: "ReplicasCompared") -> Judgement:
    if seen.outcome == "equal":
        return FINE
    if seen.outcome != "explained" or seen.cause is None:
        return None
    return Symptom(
        seen=_sentence(seen),
        certainty=_certainty(seen),
        layers=seen.layers,
        value=len(seen.layers),
        evidence=(
            f"cause={seen.cause}",
            f"ranks={_listed(seen.differing)}",
            f"compared_ranks={_listed(seen.ranks)}",
            f"last_equal_step={'none' if seen.equal_at is None else seen.equal_at}",
            *seen.evidence,
        ),
        advice=_ADVICE.get(seen.cause),
    )


def _certainty(seen: "ReplicasCompared") -> Certainty:
    counted = any(each.startswith("forward_passes=") for each in seen.evidence)
    return Certainty.CERTAIN if seen.cause in _CERTAIN and not counted else Certainty.LIKELY


def _sentence(seen: "ReplicasCompared") -> str:
    """Return, for example: ``Weights of 4 parameters on rank 1 differ from those on ranks 0 and 2 at step 100``."""
    others = tuple(rank for rank in seen.ranks if rank not in seen.differing)
    weights = f"Weights of {some(seen.layers)}"
    since = "" if seen.equal_at is None else f"; they were equal at step {seen.equal_at}"
    if not others:
        return f"{weights} differ between {ranks(seen.differing)} at step {seen.step}{since}"
    return f"{weights} on {ranks(seen.differing)} differ from those on {ranks(others)} at step {seen.step}{since}"


def ranks(numbers: Sequence[int]) -> str:
    """Return "rank 1" or "ranks 0, 2 and 3"."""
    if len(numbers) == 1:
        return f"rank {numbers[0]}"
    shown = [str(each) for each in numbers[:_MOST_RANKS]]
    if len(numbers) > _MOST_RANKS:
        return f"ranks {', '.join(shown)} and {len(numbers) - _MOST_RANKS} others"
    return f"ranks {', '.join(shown[:-1])} and {shown[-1]}"


def _listed(numbers: Sequence[int]) -> str:
    shown = ",".join(map(str, numbers[:_MOST_RANKS]))
    return f"{shown},..." if len(numbers) > _MOST_RANKS else shown
