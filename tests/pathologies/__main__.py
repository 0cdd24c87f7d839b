"""``python -m tests.pathologies``: about five minutes."""

import sys

from tests.pathologies.whole import main

if __name__ == "__main__":
    sys.exit(main())
