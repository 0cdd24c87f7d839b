"""Hyperparameters of a run as flat attributes: bounded, and without credentials."""

import logging
import math
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from nissa.errors import ConfigurationError
from nissa.events import as_mapping
from nissa.hub.plain_data import to_plain_data

Attribute = str | bool | int | float | list[str] | list[bool] | list[int] | list[float]
"""Value that an OpenTelemetry attribute can have."""

HIDDEN: Final = "***"
"""Text that replaces a credential."""

MOST_TEXT: Final = 256
"""Maximum length of a text; the rest is cut off."""

MOST_ENTRIES: Final = 50
"""Maximum length of a list; a longer one is exported as its beginning in text form."""

_SECRET_NAMES: Final = frozenset(
    {
        "auth",
        "authorization",
        "cookie",
        "credential",
        "credentials",
        "passphrase",
        "passwd",
        "password",
        "pwd",
        "secret",
    }
    | {"apikey", "token"}
)
_SPECIAL_TOKENS: Final = frozenset(
    {"additional", "bos", "cls", "end", "eos", "mask", "pad", "sep", "sos", "special", "unk"}
)
"""Words before ``token`` in the names of a tokenizer's settings."""
_KEY_OF: Final = frozenset({"access", "api", "encryption", "private", "secret", "ssh", "wandb", "account"})
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_USER_INFO: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_KNOWN_TOKENS: Final = re.compile(
    r"\b(?:hf_\w{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|xox[abp]-[\w-]{10,}|AKIA\w{12,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_IN_TEXT: Final = re.compile(
    r"(?i)((?:password|passwd|secret|token|api[_-]?key|signature|sig)['\"]?\s*[=:]\s*['\"]?|\bbearer\s+)[^\s&;,'\")]+"
)

_logger = logging.getLogger("nissa")


def flatten(run_config: object, most: int) -> dict[str, Attribute]:
    """Return hyperparameters by their names, with a dot between the levels: ``{"optimizer.lr": 0.1}``.

    Numbers and lists of numbers stay numbers. None, dtypes, paths and other objects become text. Credentials in names such
    as ``hf_token`` and in URLs are replaced by ``***``.

    Args:
        run_config: A mapping, dataclass, ``argparse.Namespace`` or other object with attributes; may be nested.
        most: Maximum number of hyperparameters; further ones are left out, which is logged.

    Raises:
        ConfigurationError: It has no names.
    """
    entries = None if isinstance(run_config, type) else as_mapping(run_config)
    if entries is None:
        raise ConfigurationError(
            f"start(run_config=...) takes names and values, such as a dict or vars(args), not {type(run_config).__name__}."
        )
    found = dict(_leaves(to_plain_data(dict(entries)), ()))
    if len(found) > most:
        _logger.warning(
            "run_config has %d entries; the first %d are exported. Pass fewer, or raise limits.max_run_config.",
            len(found),
            most,
        )
    return dict(list(found.items())[:most])


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Attribute]]:
    if isinstance(value, Mapping) and value:
        for name, entry in value.items():
            yield from _leaves(entry, (*path, name))
    else:
        yield ".".join(path)[:MOST_TEXT] or "value", _attribute(path, value)


def _attribute(path: tuple[str, ...], value: Any) -> Attribute:
    if isinstance(value, bool):
        return value
    if value not in (None, "", {}, []) and any(is_secret(name, value) for name in path):
        return HIDDEN
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list) and 0 < len(value) <= MOST_ENTRIES:
        return _list(path, value)
    return redacted(value)


def _list(path: tuple[str, ...], values: list[Any]) -> Attribute:
    entries = [_attribute(path, value) for value in values]
    kinds = set(map(type, entries))
    if kinds == {int, float}:
        return [float(entry) for entry in entries if isinstance(entry, int | float)]
    if len(kinds) == 1 and kinds <= {bool, int, float, str}:
        return entries  # type: ignore[return-value]  # all entries have one type
    return [redacted(entry) for entry in entries]


def redacted(value: object) -> str:
    """Return a value as text of bounded length, without credentials in URLs, known tokens and ``password=...``."""
    text = value if isinstance(value, str) else str(value)
    text = _USER_INFO.sub(HIDDEN, text)
    text = _IN_TEXT.sub(rf"\g<1>{HIDDEN}", _KNOWN_TOKENS.sub(HIDDEN, text))
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 3] + "..."


def is_secret(name: str, value: object) -> bool:
    """Whether a name is that of a credential: ``hf_token``, ``apiKey``, ``db.password``; not ``tokenizer``.

    A token is text: the number ``token_limit`` is a hyperparameter.
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    secret = _SECRET_NAMES.intersection(words)
    if isinstance(value, int | float) or not _SPECIAL_TOKENS.isdisjoint(words):
        secret -= {"token"}
    pairs = pairwise(words)
    return bool(secret) or any(second == "key" and first in _KEY_OF for first, second in pairs)
