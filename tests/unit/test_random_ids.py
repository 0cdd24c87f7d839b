"""Ids that neither a seeded script nor a fork repeats."""

import json
import random

from nissa.random_ids import new_event_id, new_span_id, new_trace_id
from tests import preloaded


def test_ids_have_their_width_and_differ() -> None:
    assert len({new_event_id() for _ in range(1_000)}) == 1_000
    assert {len(new_event_id()) for _ in range(1_000)} == {32}
    assert max(new_trace_id() for _ in range(1_000)).bit_length() == 128
    assert max(new_span_id() for _ in range(1_000)).bit_length() == 64


def test_the_global_generator_neither_decides_ids_nor_is_drawn_from() -> None:
    random.seed(1)
    state, first = random.getstate(), new_trace_id()
    assert random.getstate() == state
    random.seed(1)
    assert new_trace_id() != first


def test_a_forked_child_draws_other_ids_than_its_parent() -> None:
    code = """
import json, os
from nissa.random_ids import new_trace_id
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, json.dumps([new_trace_id() for _ in range(100)]).encode())
    os._exit(0)
own = [new_trace_id() for _ in range(100)]
os.wait()
print(json.dumps([own, json.loads(os.read(read, 65536))]))
"""
    own, others = json.loads(preloaded.run(["-c", code]).stdout)
    assert not set(own) & set(others)
