"""Parser for the selectors of ``gradients.layers``: glob, ``re:<regular expression>`` or ``type:<class>``."""

import re
from dataclasses import dataclass
from fnmatch import translate

from nissa.printable import shown

ALL = "all"
"""Selector for every parameter; valid alone and in a list."""

MOST_CHARACTERS = 1_000
"""Maximum length of a selector: the time to compile one grows with the square of its length."""

_NEGATION, _REGEX, _TYPE = "!", "re:", "type:"

_KINDS = "a glob over names, re:<regular expression> or type:<class>"


@dataclass(frozen=True, slots=True)
class LayerSelector:
    """Parsed selector.

    Args:
        text: Selector as written by the user.
        negated: Excludes the parameters that it matches (``!``).
        pattern: Pattern for whole parameter names; None for a type selector.
        type_name: Class name, with or without module path; None for a pattern.
    """

    text: str
    negated: bool
    pattern: re.Pattern[str] | None
    type_name: str | None = None

    @property
    def what(self) -> str:
        """Selector without its prefixes (``!``, ``re:``, ``type:``), for near-miss suggestions."""
        return self.text.removeprefix(_NEGATION).removeprefix(_REGEX).removeprefix(_TYPE)


def parse_selector(text: str) -> LayerSelector:
    """Parse one selector: a glob, ``re:<regular expression>`` or ``type:<class>``, optionally negated by ``!``.

    Raises:
        ValueError: The selector is malformed; the message contains the correct form.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{shown(text)} is longer than {MOST_CHARACTERS:,} characters; write {_KINDS}")
    body = text.removeprefix(_NEGATION)
    negated = body != text
    kind = next((each for each in (_REGEX, _TYPE) if body.startswith(each)), "")
    what = body.removeprefix(kind)
    if not what.strip():
        raise ValueError(f"{text!r} selects nothing; write {_KINDS}, or leave it out")
    if kind == _REGEX:
        return LayerSelector(text, negated, _compiled(text, what))
    if kind == _TYPE:
        return LayerSelector(text, negated, None, _class_name(text, what))
    return LayerSelector(text, negated, re.compile(translate("*" if what == ALL else what)))


def _compiled(text: str, expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except re.error as error:
        where = "" if error.pos is None else f" at position {error.pos}"
        raise ValueError(
            f"{text!r} is not a regular expression: {error.msg}{where}; correct it, or escape the character with a "
            "backslash (in a variable, a list of expressions with commas must be JSON)"
        ) from None


def _class_name(text: str, name: str) -> str:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(
            f"{text!r} names no class; write its name, as in type:Linear, or its whole path, as in type:torch.nn.Linear"
        )
    return name
