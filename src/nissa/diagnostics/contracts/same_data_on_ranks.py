"""Ranks that read the same batches, so that a part of the data is never read, and gradients are averaged over copies."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nissa.diagnostics.contracts.contract import Contract, some
from nissa.diagnostics.contracts.replica_divergence import ranks
from nissa.diagnostics.finding import Certainty
from nissa.diagnostics.rule import FINE, Judgement, Symptom

if TYPE_CHECKING:
    from nissa.diagnostics.blocks import ReplicaBlock
    from nissa.hub.measurements import ReplicasCompared


class SameDataOnRanks(Contract):
    """Replicas had the same inputs at several steps, and the inputs changed from step to step."""

    name = "same_data_on_ranks"
    advice = (
        "Give each rank its own part of the data: DataLoader(sampler=DistributedSampler(dataset)) with sampler.set_epoch(epoch); an "
        "iterable dataset must skip the items of other ranks. Ranks that share data on purpose are no replicas: pass replicas=, "
        "the group of ranks that read different data, to watch()."
    )
    observations = 4
    of = "observed steps"
    source = "PyTorch documentation, `DistributedSampler`; PyTorch forum"
    twin = "tensor parallelism, stages of a pipeline, one batch that is learned on purpose, fixed noise or coordinates"
    forward = True

    def replicas(self, block: "ReplicaBlock") -> Sequence[Judgement]:
        """Judge each comparison of batches."""
        return [_judged(each) for each in block.entries]


def _judged(seen: "ReplicasCompared") -> Judgement:
    if seen.same_data is None:
        return None
    if not seen.same_data:
        return FINE
    first, *others = seen.same_data
    steps = ", ".join(map(str, seen.same_steps))
    return Symptom(
        seen=f"{ranks(first).capitalize()} read the same batches at steps {steps}"
        + (f", and so did {some(others, 'other group')} of ranks" if others else ""),
        certainty=Certainty.LIKELY,
        value=sum(map(len, seen.same_data)),
        evidence=(f"ranks={';'.join(','.join(map(str, group)) for group in seen.same_data[:8])}", f"steps={steps}"),
    )
