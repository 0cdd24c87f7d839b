from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nissa.diagnostics.rule import FINE, UNCLEAR, Judgement, Latch, Symptom

BAD = Symptom(seen="bad")
WORDS: dict[str, Judgement] = {"b": BAD, "g": FINE, "u": UNCLEAR, "n": None}


def states(judgements: str, **limits: int) -> str:
    latch = Latch(**{"confirmations": 2, "recoveries": 2, "cooldown": 0} | limits)
    told = []
    for each in judgements:
        latch.interrupt() if each == "|" else latch.changes(WORDS[each])
        told.append("^" if latch.raised else "_")
    return "".join(told)


@pytest.mark.parametrize(
    ("judgements", "expected"),
    [
        ("bb", "_^"),
        ("bgb", "___"),
        ("bubb", "___^"),
        ("bnb", "__^"),
        ("bbgg", "_^^_"),
        ("bbgbgg", "_^^^^_"),
        ("bbguggg", "_^^^^_" + "_"),
        ("bbuuuu", "_^^^^^"),
        ("bbnnnn", "_^^^^^"),
        ("b|b|bb", "_____^"),
        ("bbg|gg", "_^^^^_"),
    ],
)
def test_it_takes_several_in_a_row_to_raise_and_to_lower_a_flag(judgements: str, expected: str) -> None:
    assert states(judgements) == expected


def test_after_a_trouble_the_same_is_not_said_again_at_once() -> None:
    assert states("bbggbbbbbb") == "_^^__^^^^^"
    assert states("bbggbbbbbb", cooldown=4) == "_^^____^^^"


def test_a_latch_knows_whether_anything_was_judged() -> None:
    latch = Latch(confirmations=1, recoveries=1, cooldown=0)
    assert (latch.changes(None), latch.judged) == (False, False)
    assert (latch.changes(UNCLEAR), latch.judged) == (False, True)


@given(st.text("bgun", max_size=60), st.integers(1, 5), st.integers(1, 5), st.integers(0, 9))
def test_changes_are_told_and_are_never_closer_than_confirmation_allows(
    judgements: str, confirmations: int, recoveries: int, cooldown: int
) -> None:
    latch = Latch(confirmations=confirmations, recoveries=recoveries, cooldown=cooldown)
    before, changed = False, []
    for position, each in enumerate(judgements):
        change = latch.changes(WORDS[each])
        assert change == (latch.raised != before)
        before = latch.raised
        if change:
            changed.append((position, latch.raised))
    for (first, _), (second, raised) in pairwise(changed):
        judged = sum(each != "n" for each in judgements[first + 1 : second + 1])
        assert judged >= (max(confirmations, cooldown) if raised else recoveries)
