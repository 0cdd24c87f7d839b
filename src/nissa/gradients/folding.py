"""Bounds the number of streams: what is over the bound is folded into its block, never cut."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray


def fold_names(names: tuple[str, ...], most: int) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """Return at most ``most`` stream names, and for each parameter the index of its stream.

    Blocks with the most members are folded first, so that as many parameters as possible keep a stream of their own; a
    folded block is called ``<block>.*``. The result is a function of its arguments alone, so that ranks agree.
    """
    streams = list(names)
    while len(set(streams)) > most:
        streams = _fold_once(streams)
    order = {stream: index for index, stream in enumerate(dict.fromkeys(streams))}
    return tuple(order), np.array([order[stream] for stream in streams], dtype=np.intp)


def _fold_once(streams: list[str]) -> list[str]:
    children = Counter(_block(stream) for stream in set(streams))
    block, members = max(children.items(), key=lambda item: (item[1], item[0].count("."), item[0]))
    if members > 1:
        return [block if _block(stream) == block else stream for stream in streams]
    # Every block has one member: moving the deepest ones up a level makes them share a block sooner or later.
    deepest = max(stream.count(".") for stream in streams)
    return [_block(stream) if stream.count(".") == deepest else stream for stream in streams]


def _block(stream: str) -> str:
    """``a.b.weight`` and ``a.b.*`` are in the blocks ``a.b.*`` and ``a.*``."""
    path = stream.removesuffix(".*").rpartition(".")[0]
    return f"{path}.*" if path else "*"
