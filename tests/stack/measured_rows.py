"""Rows of the published tables that tests with real servers measure."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.facts import facts, read, write
from scripts.stack_build import locked

Row = dict[str, str]


def keep(
    variable: str, fields: Sequence[str], row: Mapping[str, str], key: Sequence[str], order: Callable[[Row], object]
) -> None:
    """Write a row to the file that a variable of the environment names, if it names one, in place of an earlier row.

    Args:
        variable: Name of the variable.
        fields: Columns of the file.
        row: Values of the columns, without the facts about the machine.
        key: Columns in which the earlier row is equal.
        order: Sort key of the rows.
    """
    if variable not in os.environ:
        return
    path = Path(os.environ[variable])
    with locked(path.with_suffix(".lock")):
        others = [each for each in read(path) if any(each[name] != row[name] for name in key)]
        write(path, fields, sorted([*others, {**facts(1), **row}], key=order))  # type: ignore[arg-type]  # texts and numbers
