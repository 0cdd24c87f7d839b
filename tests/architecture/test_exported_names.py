"""What others read, set or import is listed in ``exported-names.txt``, so that no refactoring changes it unnoticed.

``python -m tests.architecture.test_exported_names`` writes the list anew after a change that was meant.
"""

import ast
import tomllib
from collections.abc import Iterator, Mapping
from difflib import unified_diff
from pathlib import Path
from typing import Any, Final

import pytest
import typer

import nissa
from nissa import EpochSnapshot, EventType, GateResult, Severity, Stage, TelemetryConfig, TelemetryEvent
from nissa.analytics.blueprints import BlueprintAnalytics
from nissa.cli import app
from nissa.config import PROFILES, RESERVED_VARIABLES, SEED_FEATURES, describe, feature_names
from nissa.diagnostics.brief import DecisionBrief
from nissa.diagnostics.contracts import CONTRACTS
from nissa.diagnostics.contracts.of_ranks import REPLICA_CONTRACTS
from nissa.diagnostics.rules import RULES
from nissa.doctor import variables
from nissa.events import SeedSnapshot
from nissa.hub import measurements
from nissa.journal import SIGNALS
from nissa.otel.backend import SCOPE
from nissa.semconv import attributes, metrics, pipeline, spans
from scripts.generate import ROOT
from scripts.reference_cli import commands, options

LIST: Final = Path(__file__).with_name("exported-names.txt")
SOURCE: Final = Path(nissa.__file__).parent
KEYED_BY_NAME: Final = {"blueprints", "environments", "hosts", "multipliers", "distribution", "live"}
"""Entries of a state whose keys are names that a user has chosen."""


def listed() -> str:
    """Return all of it as text: a heading per kind, and its names below."""
    sections = {**telemetry(), **settings(), **states(), **process()}
    return "\n".join(f"# {title}\n" + "".join(f"{name}\n" for name in names) for title, names in sections.items())


def telemetry() -> dict[str, list[str]]:
    """Return names of signals."""
    rows = [
        " | ".join([each.name, each.kind, each.unit, " ".join(each.attributes), _bounds(each)]) for each in metrics.ALL
    ]
    return {
        "metrics: name, kind, unit, attributes, bounds": rows,
        "attributes": constants(attributes),
        "spans and log-based Events": constants(spans),
        "series of the pipeline": constants(pipeline),
        "event types": [str(each) for each in EventType],
        "severities": [str(each) for each in Severity],
        "stages": [f"{name} = {stage.value}" for name, stage in Stage.__members__.items()],
        "kinds of measurement, as nissa.event.type": sorted(
            name
            for name, each in vars(measurements).items()
            if isinstance(each, type) and name.endswith(("Measured", "Skipped"))
        ),
        "red flags": sorted(rule.name for rule in (*REPLICA_CONTRACTS, *CONTRACTS, *RULES)),
        "scope and files": [SCOPE, *(f"{signal}.jsonl" for signal in SIGNALS)],
    }


def settings() -> dict[str, list[str]]:
    """Return names that users set."""
    known = list(describe(TelemetryConfig))
    others = [
        name
        for table in (variables.OURS, variables.LAUNCHERS, variables.OTHERS)
        for each in table
        for name in each.names()
    ]
    found = commands(typer.main.get_command(app))
    typed = [f"{name} {' '.join(option.opts)}" for name, command in found for option in options(command)]
    return {
        "profiles": list(PROFILES),
        "settings and their defaults": [f"{each.path} = {each.default!r}" for each in known],
        "variables": [*(each.variable for each in known), *RESERVED_VARIABLES, *others],
        "commands and options": typed,
    }


def states() -> dict[str, list[str]]:
    """Return keys of what is stored or sent as data."""
    analytics = BlueprintAnalytics()
    seed = TelemetryEvent("SEED_GERMINATED", seed_id="s", slot_id="r0c0", data={"blueprint_id": "b", "parameters": 1})
    for event in _life(seed):
        analytics.emit(event)
    return {
        "state of a seed": keys(_state()),
        "state of the analytics": keys(analytics.state_dict()),
        "snapshot of the analytics": keys(analytics.snapshot()),
        "snapshot of an epoch": list(EpochSnapshot.__dataclass_fields__),
        "snapshot of a seed": list(SeedSnapshot.__dataclass_fields__),
        "event": list(TelemetryEvent.__dataclass_fields__),
        "result of a gate": list(GateResult.__dataclass_fields__),
        "schema of the decision brief": keys(_properties(DecisionBrief.model_json_schema())),
        "features of an environment": list(feature_names(TelemetryConfig.from_profile("research"))),
        "features of a seed": [each.name for each in SEED_FEATURES],
    }


def process() -> dict[str, list[str]]:
    """Return what a process shows of us, and what others import."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    points = [
        f"{group}: {name} = {value}" for group, each in project["entry-points"].items() for name, value in each.items()
    ]
    return {
        "public names": nissa.__all__,
        "scripts and entry points": [
            *(f"script: {name} = {value}" for name, value in project["scripts"].items()),
            *points,
        ],
        "extras": list(project["optional-dependencies"]),
        "loggers": sorted(set(arguments("getLogger", "", 0))),
        "threads": sorted(set(arguments("Thread", "name", None))),
    }


def _bounds(spec: metrics.MetricSpec) -> str:
    return " ".join(f"{each:g}" for each in spec.bounds)


def constants(module: object) -> list[str]:
    """Return the texts that a module names in capitals, sorted."""
    found: set[str] = set()
    for name, value in vars(module).items():
        values = value if isinstance(value, tuple) else (value,)
        if name.isupper():
            found |= {str(getattr(each, "name", each)) for each in values}
    return sorted(found)


def keys(value: Any, path: str = "") -> list[str]:
    """Return the paths of all keys of nested data."""
    if not isinstance(value, Mapping) or not value:
        return [path]
    below = path.rpartition(".")[2] in KEYED_BY_NAME
    return [found for key, each in value.items() for found in keys(each, f"{path}.{'*' if below else key}".lstrip("."))]


def _properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    parts = {name: list(each.get("properties", {})) for name, each in schema.get("$defs", {}).items()}
    return {name: dict.fromkeys(each) for name, each in {"": list(schema["properties"]), **parts}.items()}


def _state() -> dict[str, Any]:
    from nissa.seeds.checkpoint import state_dict  # noqa: PLC0415 - an implementation, unlike the above
    from nissa.seeds.lifecycle import SeedTable  # noqa: PLC0415 - as above

    table = SeedTable()
    table.apply(TelemetryEvent("SEED_GERMINATED", seed_id="s"))
    (record,) = table.slots
    return state_dict(record)


def _life(seed: TelemetryEvent) -> Iterator[TelemetryEvent]:
    from nissa.seeds.lifecycle import SeedTable  # noqa: PLC0415 - see above

    table = SeedTable()
    yield from table.apply(seed)
    yield from table.apply(TelemetryEvent("SEED_CULLED", seed_id="s", slot_id="r0c0", data={"improvement": 0.1}))


def arguments(function: str, keyword: str, position: int | None) -> Iterator[str]:
    """Yield an argument of all calls of a function in the package, as it is spelled."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == function:
                given = [each.value for each in node.keywords if each.arg == keyword]
                given += node.args[position : position + 1] if position is not None else []
                yield from (ast.unparse(each) for each in given if isinstance(each, ast.Constant | ast.JoinedStr))


def test_what_others_read_set_or_import_has_not_changed() -> None:
    before, after = LIST.read_text().splitlines(), listed().splitlines()
    if before != after:
        diff = "\n".join(unified_diff(before, after, LIST.name, "the code", lineterm="", n=0))
        again = "python -m tests.architecture.test_exported_names"
        pytest.fail(
            f"Names that others use have changed.\n{diff}\nIf this is meant, write the list with `{again}`.",
            pytrace=False,
        )


if __name__ == "__main__":
    LIST.write_text(listed())
