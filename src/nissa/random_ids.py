"""Random ids and numbers, from a generator of Nissa's own.

Drawing from Python's global ``random`` would change the random numbers of a training script, and a script that seeds it
would get the same ids in every run. Reading the operating system's generator for each id would release the interpreter's
lock: the training thread would wait until another thread gives the lock back, for up to 5 ms.
"""

import os
import random
from typing import Final

GENERATOR: Final = random.Random()  # noqa: S311 - ids need to be unique, not secret
"""Generator that is seeded by the operating system, in each process anew. Its methods are atomic."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=GENERATOR.seed)


def new_trace_id() -> int:
    """Return a random 16-byte trace id (W3C Trace Context), never 0."""
    return GENERATOR.getrandbits(128) or 1


def new_span_id() -> int:
    """Return a random 8-byte span id (W3C Trace Context), never 0."""
    return GENERATOR.getrandbits(64) or 1


def new_event_id() -> str:
    """Return a random id of 32 hexadecimal digits."""
    return GENERATOR.getrandbits(128).to_bytes(16).hex()
