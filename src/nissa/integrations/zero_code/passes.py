"""Epochs and samples, derived from iterations over ``DataLoader`` objects."""

import weakref
from collections.abc import Sized
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils.data import BatchSampler, DataLoader

from nissa.gradients.batch_waits import BATCH_WAITS
from nissa.integrations.patches import Patches
from nissa.integrations.zero_code.access import ObservedMethod
from nissa.torch_compat import dataset_of

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_LOADERS: Final = 64
"""Maximum number of loaders among which that of an iterator is searched."""


class Iterated:
    """A loader when it is iterated over. The loader itself may be freed before its iterator is.

    Attributes:
        loader: Weak reference.
        dataset: ``id()`` of the dataset, which the iterator holds as well.
        length: Number of batches; None for a stream of unknown length.
    """

    def __init__(self, loader: "DataLoader[Any]") -> None:
        self.loader = weakref.ref(loader)
        self.dataset = id(loader.dataset)
        self.length = _length(loader)
        self.persistent = loader.persistent_workers
        self._batch = _batch_size(loader)
        self._samples = _samples(loader)

    def samples(self, batches: int) -> int | None:
        """Return the number of samples in the first batches; None if the loader does not define their size."""
        if self._batch is None:
            return None
        return batches * self._batch if self._samples is None else min(batches * self._batch, self._samples)


class Pass:
    """One iteration over a loader.

    Attributes:
        requests: Number of batches that were requested, the one beyond the last included.
    """

    def __init__(self, source: Iterated, iterator: object) -> None:
        self.source = source
        self.requests = self._counted = 0
        self._iterator = weakref.ref(iterator)

    @property
    def exhausted(self) -> bool:
        """Whether no further batch can come."""
        length = self.source.length
        return self._iterator() is None or (length is not None and self.requests > length)

    def new_samples(self) -> int:
        """Return the number of samples since the last call."""
        length = self.source.length
        batches = self.requests if length is None else min(self.requests, length)
        samples = self.source.samples(batches) or 0
        before, self._counted = self._counted, samples
        return samples - before

    def repeats(self, other: "Pass") -> bool:
        """Whether both are iterations over one loader."""
        loader = self.source.loader()
        return loader is not None and loader is other.source.loader()


class DataPasses:
    """Passes over data: a pass that an optimizer makes steps in is an epoch, and one that evaluates an evaluation.

    A pass evaluates without gradients, or in evaluation mode. A pass over another loader than that of the present epoch begins a new epoch only when the present one is exhausted,
    so that two loaders that are read alternately are one epoch. An epoch ends when an evaluation or another epoch
    begins, because many trainers request a batch ahead: its last step follows the end of the data.

    Args:
        begin_epoch: Called with the number of an epoch when its first step begins.
        end_epoch: Called when an epoch has ended.
        evaluated: Called when an evaluation has ended.
        in_eval_mode: Returns whether the models that are trained are in evaluation mode.
        first: Number of the first epoch.

    Attributes:
        epochs: Number of the epoch that begins next.
    """

    def __init__(
        self,
        begin_epoch: "Callable[[int], None]",
        end_epoch: "Callable[[], None]",
        evaluated: "Callable[[], None]",
        in_eval_mode: "Callable[[], bool]",
        first: int = 0,
    ) -> None:
        self.epochs = first
        self._begin_epoch, self._end_epoch, self._evaluated = begin_epoch, end_epoch, evaluated
        self._in_eval_mode = in_eval_mode
        # Whether steps are made in this mode, as when only a head is trained: then it says nothing.
        self._trains_in_eval_mode = False
        self._iterated: dict[int, Iterated] = {}
        self._passes: weakref.WeakKeyDictionary[Any, Pass] = weakref.WeakKeyDictionary()
        self._last: Pass | None = None
        self._epoch: Pass | None = None
        self._open = False
        self._evaluation: Pass | None = None
        self._observing: Callable[[Any], None] | None = None

    def install(self, patches: Patches, contain: "Callable[[Callable[[Any], None]], Callable[[Any], None]]") -> None:
        """Observe ``DataLoader.__iter__`` and ``__next__`` of its iterators, with functions that contain their faults."""
        patches.replace(DataLoader, "__iter__", ObservedMethod(vars(DataLoader)["__iter__"], contain(self._iterating)))
        self._observing = contain(self._requested)
        BATCH_WAITS.begin(self._observing)

    def uninstall(self) -> None:
        """Stop observing ``__next__``; idempotent."""
        observing, self._observing = self._observing, None
        if observing is not None:
            BATCH_WAITS.end(observing)

    def stepped(self) -> int:
        """Begin an epoch if the step that begins is the first one of a pass. Return the number of its samples."""
        self._trains_in_eval_mode = self._trains_in_eval_mode or self._in_eval_mode()
        self._end_evaluation()
        last = self._last
        if last is not None and last is not self._epoch:
            self._stepped_first(last)
        return 0 if last is None else last.new_samples()

    def _stepped_first(self, last: Pass) -> None:
        present = self._epoch
        if present is not None and not last.repeats(present) and not present.exhausted:
            return
        self._epoch, self._open = last, True
        self._begin_epoch(self.epochs)
        self.epochs += 1

    @property
    def next_epoch(self) -> int:
        """Number of the epoch in which a training continues that stops now: the present one until its data have ended."""
        present = self._epoch if self._open else None
        return self.epochs if present is None or present.exhausted else self.epochs - 1

    def close(self) -> None:
        """End what is open, at the regular end of the process."""
        self._end_evaluation()
        if self._open:
            self._open = False
            self._end_epoch()

    def _iterating(self, loader: "DataLoader[Any]") -> None:
        self._iterated.pop(id(loader), None)
        self._iterated[id(loader)] = Iterated(loader)
        while len(self._iterated) > _MOST_LOADERS:
            del self._iterated[next(iter(self._iterated))]

    def _requested(self, iterator: Any) -> None:
        found = self._pass_of(iterator)
        if found is None:
            return
        found.requests += 1
        evaluates = not torch.is_grad_enabled() or (not self._trains_in_eval_mode and self._in_eval_mode())
        if not evaluates:
            if not found.exhausted:
                self._last = found
                if found is self._epoch:
                    self._end_evaluation()
        elif self._epoch is not None and found is not self._epoch:
            self._evaluating(found)

    def _evaluating(self, found: Pass) -> None:
        if self._open and self._epoch is not None and self._epoch.exhausted:
            self._open = False
            self._end_epoch()
        if found is not self._evaluation:
            self._end_evaluation()
            self._evaluation = found
        if found.exhausted:
            self._end_evaluation()

    def _end_evaluation(self) -> None:
        evaluation, self._evaluation = self._evaluation, None
        if evaluation is not None:
            self._evaluated()

    def _pass_of(self, iterator: Any) -> Pass | None:
        known = self._passes.get(iterator)
        source = self._source_of(iterator) if known is None else self._newest(known)
        if source is None or (known is not None and known.source is source):
            return known
        made = self._passes[iterator] = Pass(source, iterator)
        return made

    def _newest(self, known: Pass) -> Iterated | None:
        """Return the newest iteration of an iterator: one with persistent workers is used for several."""
        loader = known.source.loader()
        return self._iterated.get(id(loader)) if known.source.persistent and loader is not None else known.source

    def _source_of(self, iterator: Any) -> Iterated | None:
        dataset = id(dataset_of(iterator))
        return next((each for each in reversed(self._iterated.values()) if each.dataset == dataset), None)


def _batch_size(loader: "DataLoader[Any]") -> int | None:
    """Return the number of samples of a batch; None if a sampler of the script decides."""
    if loader.batch_size is not None:
        return loader.batch_size
    sampler = loader.batch_sampler
    size = getattr(sampler, "batch_size", None) if isinstance(sampler, BatchSampler) else None
    return size if isinstance(size, int) else None


def _samples(loader: "DataLoader[Any]") -> int | None:
    """Return the number of samples of a pass; None for a stream of unknown length."""
    sampler = loader.sampler
    return len(sampler) if isinstance(sampler, Sized) and isinstance(loader.dataset, Sized) else None


def _length(loader: "DataLoader[Any]") -> int | None:
    """Return the number of batches; None for a stream of unknown length."""
    if not isinstance(loader.dataset, Sized):
        return None
    try:
        return len(loader)
    except TypeError:
        return None
