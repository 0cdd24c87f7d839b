"""Each contract finds its fault in programs as users write them, and is silent about the program without it."""

import pytest

from nissa.diagnostics.contracts import CONTRACTS
from nissa.diagnostics.contracts.contract import Contract
from tests.contracts.faulty import CASES, Case
from tests.contracts.program import run

NAMES = {contract.name for contract in CONTRACTS}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.contract}-{case.name}")
def test_the_fault_is_found_and_named(case: Case) -> None:
    outcome = run(case.faulty)
    assert outcome.flags & NAMES == {case.contract}
    event = outcome.first(case.contract)
    assert bool(event.data.get("layers")) >= bool(case.layers)
    assert all(case.layers in layer for layer in event.data["layers"]) if case.layers else True
    # Rules that would name another cause have yielded.
    (contract,) = [each for each in CONTRACTS if each.name == case.contract]
    assert not outcome.up & contract.explains


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.contract}-{case.name}")
def test_the_program_without_the_fault_raises_no_contract(case: Case) -> None:
    assert not run(case.healthy).flags & NAMES


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_every_contract_states_source_twin_and_observations_and_has_cases(contract: type[Contract]) -> None:
    assert contract.__module__ == f"nissa.diagnostics.contracts.{contract.name}"
    assert contract.source
    assert contract.twin
    assert contract.observations >= 1
    assert contract.advice.endswith(".")
    assert any(case.contract == contract.name for case in CASES)


def test_the_names_of_contracts_differ() -> None:
    assert len(NAMES) == len(CONTRACTS)
