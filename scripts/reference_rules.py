"""Reference page of rules: description of each, and its score on runs with a deliberate defect."""

import csv
import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nissa.config import describe
from nissa.config.rules import RulesConfig
from nissa.diagnostics.rule import Rule
from nissa.diagnostics.rules import RULES

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]

_KINDS = {"steps": "each step", "samples": "each sampled step", "epoch": "each validation"}


def rules(table: Table, results: Path) -> str:
    """Return the page about rules."""
    return (
        "# Rules\n\n"
        "Each rule raises a red flag when it detects a problem, and clears it when the problem is over. Flags are exported as the "
        "events `RED_FLAG_RAISED` and `RED_FLAG_CLEARED` and as `nissa.red_flag`; they are also in `EpochSnapshot.red_flags` and "
        "in the narrative. [The explanation](../explanation/rules.md) describes how rules work, and their limits.\n\n"
        f"{''.join(_rule(rule) for rule in RULES)}"
        "## Evaluation\n\n" + _evaluation(table, results) + "\n## Thresholds\n\n"
        "Those that depend on the program are settings below `diagnostics.rules`. The others are constants at the top of each rule's "
        "module, with their source.\n\n" + _thresholds(table)
    )


def _rule(rule: type[Rule]) -> str:
    about = inspect.getdoc(inspect.getmodule(rule)) or ""
    judged = " and ".join(words for kind, words in _KINDS.items() if getattr(rule, kind) is not getattr(Rule, kind))
    return (
        f"## `{rule.name}`\n\n{inspect.getdoc(rule)} Judged at {judged}; severity {rule.severity}.\n\n"
        f"{about}\n\nWhat to try: {rule.advice}\n\n"
    )


def _evaluation(table: Table, results: Path) -> str:
    if not results.exists():
        return "Not measured yet.\n"
    with results.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    where = rows[0]
    text = (
        f"Measured on {where['machine']}, torch {where['torch']}, at commit {where['commit']}, by "
        "`python -m tests.pathologies`; each run is a line of `benchmarks/results/pathologies.csv`. Thresholds were chosen on "
        "the tuning half only. A false alarm is a run with a flag that was neither its defect nor a consequence of it.\n"
    )
    for half, words in (("scoring", "Scoring half"), ("tuning", "Tuning half")):
        part = [row for row in rows if row["half"] == half]
        heads = [
            "rule",
            "runs",
            "found",
            "missed",
            "false alarms, wrong runs",
            "false alarms, healthy runs",
            "steps until noticed",
        ]
        names = ["rule", "runs", "found", "missed", "false_alarms", "healthy_false_alarms", "median_steps"]
        lines = [[row[name] or "-" for name in names] for row in part]
        text += f"\n### {words}\n\n{table(heads, lines)}"
    return text


def _thresholds(table: Table) -> str:
    rows = [[f"`{each.path}`", str(each.default), each.description] for each in describe(RulesConfig)]
    return table(["setting", "default", "meaning"], rows)
