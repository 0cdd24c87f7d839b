"""Benchmarks silence Nissa's log; other tests of the same process read it."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _same_log_level() -> Iterator[None]:
    logger = logging.getLogger("nissa")
    before = logger.level
    yield
    logger.setLevel(before)
