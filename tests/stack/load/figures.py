"""What the load tests have measured: the rows of the published table."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.facts import COLUMNS, facts, read, write
from scripts.stack_build import locked

INTO: Final = "LOAD_INTO"
"""Variable with the file that measurements are written to."""
FIELDS: Final = ("what", "measured", "test", *COLUMNS)


@dataclass(frozen=True, slots=True)
class Load:
    """One row of the table.

    Args:
        what: What was done, in words.
        measured: What came of it.
        test: Test that measured it, as a node id.
    """

    what: str
    measured: str
    test: str

    def keep(self) -> None:
        """Write the row to the file that the environment names, if it names one, in place of an earlier one."""
        if INTO not in os.environ:
            return
        path = Path(os.environ[INTO])
        with locked(path.with_suffix(".lock")):
            rows = [row for row in read(path) if row["test"] != self.test]
            write(path, FIELDS, sorted([*rows, {**asdict(self), **facts(1)}], key=lambda row: row["test"]))
