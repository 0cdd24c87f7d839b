"""Reference page of contracts: what each checks, how many observations it needs, and what resembles its fault."""

import inspect
from collections.abc import Callable, Iterable, Sequence

from nissa.diagnostics.contracts import CONTRACTS
from nissa.diagnostics.contracts.contract import Contract

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def contracts(table: Table) -> str:
    """Return the page about contracts."""
    rows = [[f"[`{each.name}`](#{each.name})", _summary(each), _needs(each)] for each in CONTRACTS]
    return (
        "# Contracts\n\n"
        "A contract is a condition that every correct training keeps, such as that each trainable parameter is in an optimizer. "
        "Faults that break one often leave the loss plausible, so that statistics do not show them. A broken contract raises a red "
        "flag with the name of the contract. [The explanation](../explanation/contracts.md) describes how contracts are checked.\n\n"
        + table(["contract", "broken if", "observations"], rows)
        + "\n"
        + "\n".join(map(_contract, CONTRACTS))
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
