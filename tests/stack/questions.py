"""The questions of the how-to about traces, taken from the document: what it tells people to ask, and what it says comes."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jq

from scripts.stack import Stack
from scripts.stack_settings import ROOT
from tests.stack.queries import fetch

DOCUMENT: Final = ROOT / "docs" / "how-to" / "traces.md"
SERVICE: Final = "digits"
"""What the document calls the service."""
_TABLE: Final = re.compile(r"^\| Service \|.*\n\|[-|]+\n\|(.+)\|$", re.MULTILINE)
_BLOCK: Final = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for, as Jaeger's API has it; what is empty is not asked."""

    service: str
    operation: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    duration: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One request of a question.

    Args:
        path: Below Jaeger's address, with ``$TRACE`` in it perhaps.
        parameters: Of the request, with ``$SERVICE`` in them.
        program: What ``jq`` is told to make of the answer.
        page: The same search as the search page has it; None where no search is made.
        sample: What the document says is printed.
    """

    path: str
    parameters: dict[str, str]
    program: str
    page: Search | None
    sample: str

    @property
    def search(self) -> Search:
        """The request, in the page's terms."""
        asked = self.parameters
        tags = tuple(json.loads(asked.get("tags", "{}")).items())
        return Search(asked.get("service", ""), asked.get("operation", ""), tags, asked.get("minDuration", ""))

    def ask(self, stack: Stack, variables: Mapping[str, str]) -> list[list[str]]:
        """Return the rows that the real Jaeger and ``jq`` print."""
        filled = {name: _filled(value, variables) for name, value in self.parameters.items()}
        answer = fetch(stack.jaeger + _filled(self.path, variables), **filled)
        program: Any = jq.compile(self.program, args={"at": variables.get("AT", "")})
        return [line.split("\t") for line in program.input_value(answer).all()]


def questions() -> dict[str, list[Step]]:
    """Return the document's questions by their headings, each with its requests in order."""
    _, *parts = re.split(r"^## (\d+\. .+)$", DOCUMENT.read_text(), flags=re.MULTILINE)
    return {heading: list(_steps(body)) for heading, body in zip(parts[::2], parts[1::2], strict=True)}


def _steps(body: str) -> list[Step]:
    steps, page, command = [], None, ""
    for found in sorted((*_TABLE.finditer(body), *_BLOCK.finditer(body)), key=lambda match: match.start()):
        if found.re is _TABLE:
            page = _of_page(found[1])
        elif found[1] == "sh":
            command = found[2]
        else:
            steps.append(_step(command, page, found[2]))
            page, command = None, ""
    assert not command, "a request whose answer the document does not show"
    return steps


def _of_page(row: str) -> Search:
    service, operation, tags, duration = (cell.strip().strip("`") for cell in row.split("|"))
    pairs = tuple((key, value) for key, _, value in (each.partition("=") for each in shlex.split(tags)))
    return Search(service, "" if operation == "all" else operation, pairs, duration)


def _step(command: str, page: Search | None, sample: str) -> Step:
    words = shlex.split(command.replace("\\\n", " "))
    bar = words.index("|")
    curl, tool = words[:bar], words[bar + 1 :]
    assert curl[0] == "curl"
    assert tool[0] == "jq"
    given = [word for word in curl[2:] if word not in {"-d", "--data-urlencode"}]
    address, *parameters = given
    assert "-fsS" in curl[1]
    return Step(
        path=address.removeprefix("$JAEGER"),
        parameters=dict(each.split("=", 1) for each in parameters),
        program=tool[-1],
        page=page,
        sample=sample,
    )


def _filled(text: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$([A-Z]+)", lambda match: variables[match[1]], text)
