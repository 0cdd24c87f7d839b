"""Threads that help the calling one with compiled loops, which need no lock of the interpreter's.

Whoever calls waits until a loop is through, and so do the cores that training was given: as many threads as torch uses
may work without taking anything from it.
"""

import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

import torch

from nissa.kernels.cores import usable_cores

HELPERS: Final = "nissa-kernel-"
"""How the names of the threads begin."""

Share = Callable[[], bool]
"""Does tasks as long as there are any that nobody has begun; tells whether all are through by then."""


def threads() -> int:
    """Return how many threads may work while the calling one waits: as many as torch may use, and as there are cores."""
    allowed = torch.get_num_threads()
    return 1 if allowed == 1 else max(1, min(allowed, int(usable_cores())))


def together(share: Share, most: int) -> None:
    """Have tasks done by the calling thread and its helpers.

    A helper that has not begun when the caller finds nothing more to do is not waited for: it will find nothing either.

    Args:
        share: What each of them calls. What it reads and writes lives as long as it does.
        most: How many threads could be of use.

    Raises:
        Exception: What ``share`` raises, on whichever thread.
    """
    helpers = min(most, threads()) - 1 if most > 1 else 0
    if helpers > 0:
        _team.work(share, helpers)
    else:
        share()


class _Job:
    """A share in some work, for as many helpers as there are tickets."""

    def __init__(self, share: Share, helpers: int) -> None:
        self._share: Share | None = share
        self._tickets = [None] * helpers  # whose pop() needs no lock
        self.helpers = helpers
        self._ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def help(self) -> None:
        """Take part, unless it is too late."""
        share = self._share
        if share is None or not self._begin():
            return
        try:
            share()
        except BaseException as error:  # noqa: BLE001 - raised in the caller
            self._ended.put(error)
        else:
            self._ended.put(None)

    def lead(self, share: Share) -> None:
        """Take part as the caller, and wait until all is through."""
        through = False
        try:
            through = share()
        finally:
            begun = self._close()
        for _ in range(begun):
            try:
                # Where all is through, nobody has to wait until a helper gets the interpreter's lock once more.
                fault = self._ended.get(block=not through)
            except Empty:
                return
            if fault is not None:
                raise fault

    def _begin(self) -> bool:
        try:
            self._tickets.pop()
        except IndexError:
            return False
        return True

    def _close(self) -> int:
        """Let nobody begin any more; return how many have."""
        unused = 0
        while self._begin():
            unused += 1
        self._share = None
        return self.helpers - unused


class _Team:
    """Threads that are started when they are first needed, and wait to be asked.

    They are daemons, so that the interpreter ends without them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._jobs: SimpleQueue[_Job] = SimpleQueue()

    def work(self, share: Share, helpers: int) -> None:
        """Do the caller's part with up to so many helpers; several threads may call at once."""
        job = _Job(share, min(helpers, self._grow(helpers)))
        for _ in range(job.helpers):
            self._jobs.put(job)
        job.lead(share)

    def _grow(self, helpers: int) -> int:
        """Return how many there are, after starting as many as are asked for and can be had."""
        if self._number < helpers:
            with self._lock:
                while self._number < helpers and self._start(self._number + 1):
                    self._number += 1
        return self._number

    def _start(self, number: int) -> bool:
        thread = threading.Thread(target=_help, args=(self._jobs,), name=f"{HELPERS}{number}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads can be had, or the interpreter is ending
            return False
        return True


def _help(jobs: "SimpleQueue[_Job]") -> None:
    while True:
        jobs.get().help()


_team = _Team()


def _renew() -> None:
    """Begin anew in a forked child: threads did not come along, and a lock may be held by one of them for ever."""
    global _team  # noqa: PLW0603 - replaced as a whole
    _team = _Team()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
