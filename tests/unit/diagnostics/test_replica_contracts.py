"""Contracts about several ranks: sentences, certainty, and flags that follow the comparisons."""

from typing import Any

import pytest

from nissa.config import TelemetryConfig
from nissa.diagnostics.contracts.of_ranks import REPLICA_CONTRACTS
from nissa.diagnostics.contracts.replica_divergence import _ADVICE, ranks
from nissa.diagnostics.finding import Finding
from nissa.diagnostics.rulebook import RuleBook
from nissa.distributed.replica_causes import Cause
from nissa.hub.measurements import ReplicasCompared, StepMeasured


def seen(outcome: str = "explained", step: int = 8, **fields: Any) -> ReplicasCompared:
    known: dict[str, Any] = {"env_id": None, "model_name": None, "leads": True, "ranks": (0, 1, 2)}
    if outcome == "explained":
        known |= {"cause": "corruption", "layers": ("w",), "differing": (1,), "equal_at": 4}
    return ReplicasCompared(step=step, time_unix_nano=step, outcome=outcome, **(known | fields))


def book(**settings: Any) -> RuleBook:
    found = RuleBook(TelemetryConfig.from_profile("standard", settings).diagnostics)
    found.judge([StepMeasured(env_id=None, step=0, time_unix_nano=0)], [])
    return found


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_a_finding_names_layers_step_and_the_ranks_in_the_minority() -> None:
    finding = only(book().compared([seen()]))
    assert (finding.name, finding.raised, finding.layers, finding.value) == ("replica_divergence", True, ("w",), 1)
    assert finding.seen == (
        "Weights of 1 parameter on rank 1 differ from those on ranks 0 and 2 at step 8; they were equal at step 4"
    )
    assert finding.evidence == ("cause=corruption", "ranks=1", "compared_ranks=0,1,2", "last_equal_step=4")
    assert (finding.step, finding.first_step) == (8, 8)


def test_without_a_majority_all_ranks_are_named() -> None:
    finding = only(book().compared([seen(differing=(0, 1, 2), equal_at=None)]))
    assert finding.seen == "Weights of 1 parameter differ between ranks 0, 1 and 2 at step 8"


def test_many_ranks_are_abbreviated() -> None:
    assert ranks((3,)) == "rank 3"
    assert ranks((3, 4)) == "ranks 3 and 4"
    assert ranks(tuple(range(20))) == "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 12 others"


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_has_an_advice_of_its_own(cause: Cause) -> None:
    finding = only(book().compared([seen(cause=cause.value)]))
    assert finding.advice == _ADVICE[cause.value]
    assert finding.advice.endswith(".")
    assert len(set(_ADVICE.values())) == len(Cause)


def test_what_ranks_state_is_certain_and_what_is_concluded_is_likely() -> None:
    assert only(book().compared([seen(cause="learning_rate")])).certainty == "certain"
    assert only(book().compared([seen(cause="clipping")])).certainty == "likely"
    counted = seen(cause="skipped_step", evidence=("forward_passes=1 (rank 0), 2 (rank 1)",))
    assert only(book().compared([counted])).certainty == "likely"


def test_the_flag_is_lowered_by_the_first_equal_weights() -> None:
    rules = book()
    assert only(rules.compared([seen()])).raised
    assert rules.compared([seen("different", 10), seen("incomplete", 12), seen("failed", 14), seen(step=16)]) == []
    assert rules.flags["replica_divergence"]
    finding = only(rules.compared([seen("equal", 18)]))
    assert (finding.raised, finding.up) == (False, False)


def test_ranks_that_read_the_same_data_are_grouped() -> None:
    rules = book()
    finding = only(rules.compared([seen("data", same_data=((0, 2), (1, 3)), same_steps=(0, 1, 2, 4))]))
    assert finding.name == "same_data_on_ranks"
    assert finding.seen == "Ranks 0 and 2 read the same batches at steps 0, 1, 2, 4, and so did 1 other group of ranks"
    assert finding.evidence == ("ranks=0,2;1,3", "steps=0, 1, 2, 4")
    assert not only(rules.compared([seen("data", same_data=())])).raised


def test_comparisons_of_a_watch_that_has_ended_are_left_out() -> None:
    rules = book()
    rules.forget(None)
    assert rules.compared([seen()]) == []


def test_they_are_judged_without_the_other_contracts() -> None:
    assert only(book(diagnostics__contracts=False).compared([seen()])).raised


@pytest.mark.parametrize("contract", REPLICA_CONTRACTS, ids=lambda contract: contract.name)
def test_every_contract_states_source_twin_and_observations(contract: Any) -> None:
    assert contract.__module__ == f"nissa.diagnostics.contracts.{contract.name}"
    assert contract.source
    assert contract.twin
    assert contract.observations >= 1
    assert contract.advice.endswith(".")
