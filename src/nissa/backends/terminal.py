"""The terminal library, loaded without drawing from Python's global ``random``: its default styles do, at import."""

import random

_state = random.getstate()

from rich.console import Console  # noqa: E402 - see above
from rich.text import Text  # noqa: E402 - see above

random.setstate(_state)

__all__ = ["Console", "Text"]
