"""Writes what the seeded runs export: ``python -m tests.seeded`` after a change that was meant, or into another folder.

python -m tests.seeded [FOLDER]
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.seeded.canonical import EXPECTED, canonical
from tests.seeded.program import main

if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else EXPECTED
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        main(Path(folder))
        for name, text in canonical(Path(folder)).items():
            (target / f"{name}.txt").write_text(text)
