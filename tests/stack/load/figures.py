"""What the load tests have measured: the rows of the published table."""

from dataclasses import asdict, dataclass
from typing import Final

from benchmarks.facts import COLUMNS
from tests.stack.measured_rows import keep

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
        keep(INTO, FIELDS, asdict(self), ["test"], lambda row: row["test"])
