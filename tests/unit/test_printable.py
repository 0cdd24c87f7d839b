"""Text that reaches consoles, logs, files, spans and pages."""

from hypothesis import given
from hypothesis import strategies as st

from nissa.printable import MOST_NAME, decoded, printable, printable_lines, printable_name
from tests.hostile import UNSAFE, is_safe, texts


@given(texts, st.integers(0, 40))
def test_unsafe_text_is_escaped_and_cut_once(text: str, most: int) -> None:
    safe = printable(text, most)
    assert is_safe(safe)
    assert len(safe) <= max(most, 1)
    assert printable(safe, max(most, 1)) == safe
    safe.encode()


@given(texts)
def test_unsafe_names_are_escaped_once(text: str) -> None:
    safe = printable_name(text)
    assert is_safe(safe)
    assert printable_name(safe) == safe


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=MOST_NAME))
def test_safe_text_is_not_changed(text: str) -> None:
    assert printable(text) is text
    assert printable_name(text) is text


@given(st.text("ab\n", min_size=300, max_size=400), st.text("ab\n", min_size=300, max_size=400))
def test_long_names_that_differ_stay_different(one: str, other: str) -> None:
    assert len(printable_name(one)) <= MOST_NAME
    assert (printable_name(one) == printable_name(other)) is (one == other)


def test_an_escape_names_the_character() -> None:
    assert printable("a\x1b[2Jb\nc\u2028\ud800\x00") == r"a\x1b[2Jb\nc\u2028\ud800\x00"


def test_letters_of_all_scripts_and_emoji_stay() -> None:
    for text in ("naïve", "Übung", "学習率", "👩‍🔬", "a b", "50 %"):
        assert printable(text) == text


def test_lines_of_a_message_stay_lines() -> None:
    assert printable_lines("one:\n  - \x1b[2Jtwo\r") == "one:\n  - \\x1b[2Jtwo\\r"


@given(st.binary(max_size=20))
def test_bytes_become_text(data: bytes) -> None:
    decoded(data).encode()


def test_bytes_of_text_are_that_text() -> None:
    assert decoded("Übung".encode()) == "Übung"
    assert decoded(b"\xffx") == r"\xffx"


def test_each_unsafe_part_is_seen_by_the_check_of_these_tests() -> None:
    assert not any(map(is_safe, UNSAFE))
