"""Healthy programs that resemble a fault raise no contract."""

import pytest

from nissa.diagnostics.contracts import CONTRACTS
from tests.contracts.legitimate import PROGRAMS
from tests.contracts.program import run

NAMES = {contract.name for contract in CONTRACTS}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_healthy_program_raises_no_contract(name: str) -> None:
    assert not run(PROGRAMS[name]).flags & NAMES
