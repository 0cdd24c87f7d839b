"""Limit for the number of streams: streams over the limit are merged into their block, never dropped."""

import heapq
import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

_logger = logging.getLogger("nissa")

_NETWORKS: Final = 64
"""Cached lists of names: one per model, and one per state of a growing model."""

Folded = tuple[tuple[str, ...], NDArray[np.intp]]
"""Stream names, and for each parameter the index of its stream."""


def fold_names(names: tuple[str, ...], most: int) -> Folded:
    """Return at most ``most`` stream names, and for each parameter the index of its stream.

    Blocks with the most members are folded first, so that as many parameters as possible keep their own stream. A
    folded block is called ``<block>.*``. The result depends on the arguments alone, so that all ranks agree.

    A block may have more members than the limit, for example a ``ParameterList``. It is folded into ranges of
    consecutive members if a single stream for the block would leave more than half of the limit unused. A range is
    called ``<block>[<first>-<last>].*``. Example: with a limit of 200, ``blocks.0`` to ``blocks.4999`` become
    ``blocks[0-24].*`` to ``blocks[4975-4999].*``.

    Args:
        names: One entry per parameter: its name, or the name of the group whose stream it shares.
        most: At least 1.
    """
    streams = _Streams(names)
    while len(streams.members) > most:
        streams.fold(most)
    members = sorted(streams.members.items(), key=lambda item: min(item[1]))
    groups = np.zeros(len(names), dtype=np.intp)
    for group, (_, indices) in enumerate(members):
        groups[indices] = group
    return tuple(stream for stream, _ in members), groups


class StreamLimiter:
    """Cached `fold_names` that logs one warning when the limit is first exceeded.

    Args:
        most: Maximum number of streams per model.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._logged = False
        self._fold = lru_cache(maxsize=_NETWORKS)(fold_names)

    def __call__(self, names: tuple[str, ...]) -> Folded:
        """Return the result of `fold_names`."""
        folded = self._fold(names, self._most)
        if not self._logged and len(set(names)) > len(folded[0]):
            self._logged = True
            self._log_folding(names, *folded)
        return folded

    def _log_folding(self, names: tuple[str, ...], streams: tuple[str, ...], groups: NDArray[np.intp]) -> None:
        before = len(set(names))
        own = len(set(names) & set(streams))
        _logger.warning(
            "gradients.max_parameters (%d): of %d gradient streams %d are folded into %d of their blocks, such as %s, and "
            "%d stay as they are. To see more, raise gradients.max_parameters, choose with gradients.layers, or share by "
            "structure with gradients.group_by.",
            self._most,
            before,
            before - own,
            len(streams) - own,
            streams[int(np.argmax(np.bincount(groups)))],
            own,
        )


class _Streams:
    """Mutable state of one fold.

    Args:
        names: Initial streams, one per distinct name.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.members: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            self.members.setdefault(name, []).append(index)
        self._children: dict[str, set[str]] = {}
        # Priority queue: the largest block is needed in every round, and sorting all blocks each time would be
        # quadratic.
        self._queue: list[tuple[int, int, str]] = []
        self._rank = {block: -rank for rank, block in enumerate(sorted(_blocks(names), key=_depth_and_name))}
        for name in self.members:
            self._children.setdefault(_block(name), set()).add(name)
        for block in self._children:
            self._offer(block)

    def fold(self, most: int) -> None:
        """Fold the block with the most members; ties go to the deepest block, then to the last by name.

        Args:
            most: Maximum number of streams of the final result.
        """
        while self._queue:
            negative_size, _, block = heapq.heappop(self._queue)
            if len(self._children[block]) == -negative_size:  # else stale: its members were folded after it was queued
                self._fold(block, most)
                return
        # Every block has one member. Moving the deepest streams up one level eventually makes some share a block.
        deepest = max(stream.count(".") for stream in self.members)
        self._move([stream for stream in self.members if stream.count(".") == deepest])

    def _fold(self, block: str, most: int) -> None:
        members = [stream for stream in self._children[block] if stream != block]
        others = len(self.members) - len(members)
        # Factor 2: the single stream would leave more than half of the limit unused. A block that fits is never split
        # into ranges, so that its name does not depend on other blocks.
        if len(members) > most and 2 * (others + 1) <= most:
            self._merge(_ranges(block, members, most - others))
        else:
            self._move(members)

    def _merge(self, ranges: dict[str, list[str]]) -> None:
        for name, members in ranges.items():
            self.members[name] = [index for stream in members for index in self.members.pop(stream)]

    def _move(self, streams: Iterable[str]) -> None:
        """Merge each stream into its block."""
        # Remove all streams before inserting any: a stream may be the block of another one in the same call.
        taken = [(stream, self.members.pop(stream)) for stream in streams if stream != _block(stream)]
        for stream, _ in taken:
            self._children[_block(stream)].discard(stream)
        for stream, indices in taken:
            block = _block(stream)
            self.members.setdefault(block, []).extend(indices)
            self._children.setdefault(_block(block), set()).add(block)
            self._offer(_block(block))

    def _offer(self, block: str) -> None:
        """Queue a block with at least two members; `fold` skips entries whose size has become stale."""
        size = len(self._children[block])
        if size > 1:
            heapq.heappush(self._queue, (-size, self._rank[block], block))


def _ranges(block: str, members: list[str], most: int) -> dict[str, list[str]]:
    """Return at most ``most`` ranges of a block's members, by name; a range with one member keeps that member's name.

    Ranges of numbered members begin at multiples of their width, so that a few absent members do not shift them.
    """
    labels = {stream: stream.removesuffix(".*").rpartition(".")[2] for stream in members}
    numbered = all(label.isdecimal() for label in labels.values())
    ordered = sorted(members, key=lambda stream: (int(labels[stream]) if numbered else 0, labels[stream], stream))
    numbered = numbered and int(labels[ordered[-1]]) < 2 * len(ordered)  # sparse numbers would leave most ranges empty
    places = [int(labels[stream]) for stream in ordered] if numbered else list(range(len(ordered)))
    width = -(-(places[-1] + 1) // most)
    ranges: dict[int, list[str]] = {}
    for place, stream in zip(places, ordered, strict=True):
        ranges.setdefault(place // width, []).append(stream)
    path = block.removesuffix("*").removesuffix(".")
    named = {}
    for number, streams in ranges.items():
        ends = (labels[streams[0]], labels[streams[-1]])
        if numbered:
            ends = (str(number * width), str(min((number + 1) * width - 1, places[-1])))
        named[streams[0] if len(streams) == 1 else f"{path}[{ends[0]}-{ends[1]}].*"] = streams
    return named


def _blocks(names: Iterable[str]) -> set[str]:
    """Return all enclosing blocks of the names, at every level."""
    found = {"*"}
    for name in names:
        block = _block(name)
        while block not in found:
            found.add(block)
            block = _block(block)
    return found


def _depth_and_name(block: str) -> tuple[int, str]:
    return block.count("."), block


def _block(stream: str) -> str:
    """Return the enclosing block: ``a.b.weight`` -> ``a.b.*``, ``a.b.*`` -> ``a.*``."""
    path = stream.removesuffix(".*").rpartition(".")[0]
    return f"{path}.*" if path else "*"
