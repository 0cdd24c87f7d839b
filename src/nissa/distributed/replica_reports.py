"""Reports of ranks about their weights, as they are exchanged through a store."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any

__all__ = ["Comparison", "Detail", "Summary", "summarised"]


@dataclass(frozen=True, slots=True)
class Detail:
    """State of one rank at a step, sent only after a mismatch.

    Args:
        names: Name, dtype and shape of each parameter, separated by tabs; the shape is that of the part on this rank.
        digests: Digest of each, as hexadecimal text.
        norms: L2 norm of each gradient that the step used; None where it was not measured.
        rates: Learning rate of each parameter group.
        settings: Other settings of the optimizer, by group and name.
        skipped: Number of steps that loss scaling skipped.
        clip: Maximum norm that gradients were clipped to; None without clipping, and where it is not known.
        forwards: Number of forward passes with gradients; None if no hook counts them.
        wrapped: Whether a wrapper that averages gradients ran in the forward pass; None if it is not known.
        received: Whether an input of the model required a gradient, as behind another stage of a pipeline.
    """

    names: Sequence[str] = ()
    digests: Sequence[str] = ()
    norms: Sequence[float | None] = ()
    rates: Sequence[float | None] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    skipped: int = 0
    clip: float | None = None
    forwards: int | None = None
    wrapped: bool | None = None
    received: bool = False

    def encode(self) -> bytes:
        """Return compressed JSON."""
        return zlib.compress(json.dumps(asdict(self)).encode())

    @staticmethod
    def decode(data: bytes) -> "Detail":
        """Return the detail of `encode`."""
        return Detail(**json.loads(zlib.decompress(data)))


@dataclass(frozen=True, slots=True)
class Summary:
    """Report of one rank about a step.

    Args:
        key: Number of earlier calls of ``step()``, by which ranks find each other; counted anew when ``Join`` begins or ends, since
            ranks may make different numbers of steps within it.
        step: Number of completed steps.
        at: End of the step, nanoseconds since the Unix epoch.
        behind: Seconds from the beginning of the backward pass to the end of the step; None if not observed.
        weights: Digest of all weights before the step; None if they were not read.
        batch: Digest of the inputs; None if they were not read.
    """

    key: int
    step: int
    at: int
    behind: float | None = None
    weights: str | None = None
    batch: str | None = None

    def encode(self) -> str:
        """Return JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(data: bytes) -> "Summary":
        """Return the summary of `encode`."""
        return Summary(**json.loads(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Result of comparing the reports of one step.

    Args:
        step: Number of completed steps on this rank.
        ranks: Ranks that compare, ascending.
        at: Time of the step on this rank, nanoseconds since the Unix epoch.
        outcome: ``equal`` or ``different`` weights, ``explained`` (the list per parameter of a mismatch), ``data`` (ranks begin or
            cease to read the same batches), ``timed`` (no weights were read), ``incomplete`` (a rank did not report the step)
            or ``failed`` (the store).
        leads: Whether this rank compares for all, and exports the numbers.
        skew: Seconds between the first and the last rank at the step; None if it is not known.
        differing: Ranks in the minority; all ranks if there is no majority. Empty without a list per parameter.
        layers: Parameters that differ.
        cause: Pattern of the differences, see `nissa.distributed.replica_causes`; None without a list per parameter.
        equal_at: Newest step with equal weights; None if there was none.
        presumed: Whether only equal weights at first let the ranks count as replicas.
        evidence: Numbers that the cause rests on, each as ``name=value``.
        same_data: Groups of ranks that read the same batches; None if this was not judged.
        same_steps: Steps at which they did.
        absent: Ranks that did not report the step.
    """

    step: int
    ranks: tuple[int, ...]
    at: int
    outcome: str
    leads: bool = True
    skew: float | None = None
    differing: tuple[int, ...] = ()
    layers: tuple[str, ...] = ()
    cause: str | None = None
    equal_at: int | None = None
    presumed: bool = False
    evidence: tuple[str, ...] = ()
    same_data: tuple[tuple[int, ...], ...] | None = None
    same_steps: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """Return compressed JSON."""
        return zlib.compress(json.dumps(asdict(self)).encode())

    @staticmethod
    def decode(data: bytes) -> "Comparison":
        """Return the comparison of `encode`."""
        return Comparison(**{name: _frozen(value) for name, value in json.loads(zlib.decompress(data)).items()})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def summarised(names: Sequence[str], digests: Sequence[str]) -> str:
    """Return a digest of all weights: of names, shapes, dtypes and the digest of each."""
    return blake2b("\n".join((*names, *digests)).encode(), digest_size=8).hexdigest()
