"""Pause of Python's garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Run a block without automatic garbage collection, for one that imports many modules.

    The objects of modules stay alive, so that there is nothing to collect; but their number makes the collector visit all
    objects of the process. Where torch is loaded, each of these visits takes about as long as importing thirty modules.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            _age()
            gc.enable()


def _age() -> None:
    """Move all objects to the oldest generation without visiting them.

    Otherwise the collector would make up for the pause with a visit of all objects in one of the first steps of training.
    """
    if not gc.get_freeze_count():  # what the application has frozen must stay so
        gc.freeze()
        gc.unfreeze()
