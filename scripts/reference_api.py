"""Reference page of the public Python names, generated from source, so that it does not depend on the Python version."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from enum import Enum
from functools import cached_property
from typing import Any, Final

from pydantic import BaseModel

import nissa
from nissa import pytest_plugin
from nissa import testing as kit
from nissa.errors import NissaError

_SECTION: Final = re.compile(r"^(Args|Attributes|Raises|Returns|Example|Examples):$")
_ENTRY: Final = re.compile(r"^ {4}(\*{0,2}[\w.]+)(?: \([^)]*\))?: (.*)$")
_PROPERTIES: Final = (property, cached_property)
_UNTOLD: Final = (Exception, BaseException, object)


def api() -> str:
    """Return the page."""
    head = (
        "# Python API\n\nWhat `import nissa` offers; everything else may change. Accuracies, improvements and rates are "
        "fractions: 0.025 is 2.5 points.\n"
    )
    return head + "".join(f"\n## {name}\n\n{_described(name, getattr(nissa, name))}" for name in nissa.__all__)


def testing() -> str:
    """Return the page of the test kit: its fixtures, and the names of `nissa.testing`."""
    head = (
        "# Test kit\n\nFixtures that pytest loads by itself, and what `import nissa.testing` offers. "
        "[A guide](../how-to/test-your-training.md) shows their use.\n\n## Fixtures\n"
    )
    fixtures = "".join(f"\n### {name}\n\n{prose(fixture)}" for name, fixture in _fixtures())
    names = "".join(f"\n## {name}\n\n{_of_kit(name, getattr(kit, name))}" for name in kit.__all__)
    return head + fixtures + names


def _of_kit(name: str, thing: Any) -> str:
    """Describe a name of the kit; the methods of a selection are described once."""
    if thing is kit.Selection or not (inspect.isclass(thing) and issubclass(thing, kit.Selection)):
        return _described(name, thing)
    own = (
        f"\n### {name}.{each}\n\n{_member(f'{name}.{each}', inspect.getattr_static(thing, each))}"
        for each in _own(thing)
    )
    return f"{prose(thing)}\nHas the methods of `Selection` too.\n{''.join(own)}"


def _own(kind: type) -> list[str]:
    return [name for name, _ in public_members(kind) if name in vars(kind)]


def _fixtures() -> Iterator[tuple[str, Any]]:
    return ((name, each) for name, each in vars(pytest_plugin).items() if name.startswith("nissa_"))


def _described(name: str, thing: Any) -> str:
    if not inspect.isclass(thing):
        return _code(name, thing) + prose(thing)
    if issubclass(thing, Enum):
        members = ", ".join(f"`{member}`" for member in thing.__members__)
        return f"{prose(thing)}\nMembers: {members}.\n"
    if issubclass(thing, NissaError):
        bases = ", ".join(f"`{base.__name__}`" for base in thing.__mro__[1:] if base not in _UNTOLD)
        return prose(thing) + (f"\nAlso a {bases}.\n" if bases else "")
    fields = _fields(thing) if issubclass(thing, BaseModel) else ""
    return _code(name, thing.__init__) + prose(thing) + fields + "".join(_members(name, thing))


def _fields(kind: type[BaseModel]) -> str:
    lines = [
        f"- `{name}`: {' '.join((field.description or 'See the reference of settings.').split())}\n"
        for name, field in kind.model_fields.items()
    ]
    return f"\nFields:\n\n{''.join(lines)}"


def _members(owner: str, kind: type) -> Iterator[str]:
    for name, member in public_members(kind):
        yield f"\n### {owner}.{name}\n\n{_member(f'{owner}.{name}', member)}"


def _member(name: str, member: Any) -> str:
    plain = _plain(member)
    code = "" if isinstance(member, _PROPERTIES) else _code(name, plain)
    return code + prose(plain)


def public_members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties of a class and of Nissa's base classes, in source order."""
    seen: set[str] = set()
    for base in kind.__mro__:
        for name, member in vars(base).items() if base.__module__.partition(".")[0] == "nissa" else ():
            documented = isinstance(member, _PROPERTIES) or inspect.isfunction(_plain(member))
            if documented and not name.startswith("_") and name not in seen:
                seen.add(name)
                yield name, member


def _plain(member: Any) -> Any:
    """Return the function behind a method of a class, a property, or a decorated function."""
    if isinstance(member, property):
        return member.fget
    if isinstance(member, cached_property):
        return member.func
    return inspect.unwrap(getattr(member, "__func__", member))


def _code(name: str, function: Any) -> str:
    """Return the signature as written in the source; empty if the code is generated, as for dataclasses."""
    if (getattr(function, "__module__", None) or "").partition(".")[0] != "nissa":
        return ""
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError, SyntaxError):
        return ""
    if not isinstance(node, ast.FunctionDef):
        return ""
    arguments = node.args
    if arguments.args and arguments.args[0].arg in {"self", "cls"}:
        del arguments.args[0]
    returned = f" -> {ast.unparse(_unquoted(node.returns))}" if node.returns and node.name != "__init__" else ""
    return f"```py\n{name}({ast.unparse(_unquoted(arguments))}){returned}\n```\n\n"


def _unquoted(node: Any) -> Any:
    """Return a node with unquoted annotations; string defaults keep their quotes."""
    if isinstance(node, ast.arguments):
        for argument in (*node.posonlyargs, *node.args, *node.kwonlyargs, node.vararg, node.kwarg):
            if argument is not None and argument.annotation is not None:
                argument.annotation = _unquoted(argument.annotation)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ast.parse(node.value, mode="eval").body
    return node


def prose(thing: Any) -> str:
    """Return a docstring as Markdown: sections become paragraphs with a list.

    Raises:
        ValueError: There is no docstring.
    """
    text = inspect.getdoc(thing)
    if not text:
        raise ValueError(f"{thing!r} is public and has no docstring.")
    lines: list[str] = []
    section = ""
    for line in text.replace("``", "`").splitlines():
        if heading := _SECTION.match(line.strip()):
            section = heading[1]
            lines += [f"{section}:", ""]
        elif section and (entry := _ENTRY.match(line)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        else:
            continued = section and line.strip() and not section.startswith("Example")
            lines.append(f"  {line.strip()}" if continued else line)
    return "\n".join(lines).rstrip() + "\n"
