"""Reference page of contracts: what each checks, how many observations it needs, and what resembles its fault."""

import csv
import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nissa.diagnostics.contracts import CONTRACTS
from nissa.diagnostics.contracts.contract import Contract
from nissa.diagnostics.contracts.of_ranks import REPLICA_CONTRACTS

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def contracts(table: Table, results: Path) -> str:
    """Return the page about contracts.

    Args:
        table: Formats a table.
        results: File of the measured cost.
    """
    everything = (*REPLICA_CONTRACTS, *CONTRACTS)
    rows = [[f"[`{each.name}`](#{each.name})", _summary(each), _needs(each)] for each in everything]
    return (
        "# Contracts\n\n"
        "A contract is a condition that every correct training keeps, such as that each trainable parameter is in an optimizer. "
        "Faults that break one often leave the loss plausible, so that statistics do not show them. A broken contract raises a red "
        "flag with the name of the contract. [The explanation](../explanation/contracts.md) describes how contracts are checked.\n\n"
        + table(["contract", "broken if", "observations"], rows)
        + "\n"
        + "\n".join(map(_contract, everything))
        + "\n## Cost\n\n"
        + _cost(table, results)
    )


def _cost(table: Table, results: Path) -> str:
    if not results.exists():
        return "Not measured yet.\n"
    with results.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    where = rows[0]
    lines = [
        [
            each["steps"],
            each["observed"],
            f"{each['added_us']} ({each['added_us_low']} to {each['added_us_high']})",
            f"{each['share_percent']} ({each['share_percent_low']} to {each['share_percent_high']})",
        ]
        for each in rows
    ]
    return (
        "CPU time that contracts add to the training thread, for a network of 200 parameters, per step and as a share of a step "
        f"of {where['step_ms']} ms in the same process. Median of pairs of runs, with 95 % interval. Measured on "
        f"{where['machine']}, torch {where['torch']}, at commit {where['commit']}, by `python -m benchmarks.contracts`.\n\n"
        + table(["steps", "observed steps", "added, µs a step", "share, %"], lines)
    )


def _summary(contract: type[Contract]) -> str:
    return (inspect.getdoc(contract) or "").rstrip(".")


def _needs(contract: type[Contract]) -> str:
    number = f"{contract.observations:,} {contract.of}"
    return f"{number}; hooks in the forward pass" if contract.forward else number


def _contract(contract: type[Contract]) -> str:
    about = inspect.getdoc(inspect.getmodule(contract)) or ""
    yielding = ", ".join(f"`{name}`" for name in sorted(contract.explains)) or "none"
    return (
        f"## `{contract.name}`\n\n{about}\n\n"
        f"- **Broken if:** {inspect.getdoc(contract)}\n"
        f"- **Observations:** {_needs(contract)}\n"
        f"- **Legitimate, and silent:** {contract.twin}\n"
        f"- **Rules that yield to it:** {yielding}\n"
        f"- **Severity:** {contract.severity}\n"
        f"- **Source:** {contract.source}\n\n"
        f"What to try: {contract.advice}\n"
    )
