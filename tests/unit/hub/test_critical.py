import gc
import threading

import pytest

from nissa.hub.critical import CriticalSections


def test_only_the_thread_that_holds_a_lock_is_inside() -> None:
    sections = CriticalSections()
    lock = sections.lock()
    elsewhere: list[bool] = []
    with sections, lock:
        assert sections.inside
        other = threading.Thread(target=lambda: elsewhere.append(sections.inside))
        other.start()
        other.join()
    assert elsewhere == [False]
    assert not sections.inside


def test_deferred_calls_run_once_no_lock_is_held_in_the_order_in_which_they_came() -> None:
    sections = CriticalSections()
    outer, inner = sections.lock(), sections.lock()
    ran: list[str] = []
    with sections, outer:
        with sections, inner:
            sections.defer(lambda: ran.append("first"))
        assert not ran
        sections.defer(lambda: ran.append("second"))
    assert ran == ["first", "second"]


def test_a_keyboard_interrupt_within_a_section_leaves_neither_a_lock_nor_a_section_behind() -> None:
    sections = CriticalSections()
    lock = sections.lock()
    ran: list[str] = []

    def interrupted() -> None:
        with sections, lock:
            sections.defer(lambda: ran.append("deferred"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ran == ["deferred"]
    assert not sections.inside
    freed = threading.Thread(target=lambda: ran.append(str(lock.acquire(timeout=1))))
    freed.start()
    freed.join()
    assert ran == ["deferred", "True"]


def test_locks_of_runs_that_are_over_are_forgotten() -> None:
    sections = CriticalSections()
    for _ in range(100):
        sections.lock()
    gc.collect()
    kept = sections.lock()
    with sections, kept:
        assert sections.inside
    assert len(sections._locks) == 1


def test_a_lock_that_is_shared_under_a_name_exists_once_and_is_known_once() -> None:
    sections = CriticalSections()
    first = sections.lock("rules")
    assert sections.lock("rules") is first
    assert sections.lock("other") is not first
    assert len([known for known in sections._locks if known() is first]) == 1
