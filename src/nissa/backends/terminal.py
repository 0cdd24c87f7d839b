"""Import of ``rich`` that leaves the state of Python's global ``random`` unchanged.

The default styles of ``rich`` draw from it at import, which would change the random numbers of the training script.
"""

import random

_state = random.getstate()

from rich.console import Console  # noqa: E402 - see above
from rich.text import Text  # noqa: E402 - see above

random.setstate(_state)

__all__ = ["Console", "Text"]
