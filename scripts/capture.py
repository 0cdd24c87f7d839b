"""Run the demo and save a picture of its display at the most interesting moment."""

import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nissa.demo import app
from nissa.demo.display import Screen
from nissa.demo.graft import ENDED

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH, HEIGHT = 100, 44


class Recorder(Screen):
    """Keeps the frame with the most decided seeds while at least one is still undecided."""

    best: "tuple[int, str]" = (-1, "")

    def _draw(self) -> "RenderableType":
        drawn = super()._draw()
        stages = [graft.stage for trainer in self._trainers for graft in trainer.grafts]
        decided = sum(stage in ENDED for stage in stages)
        if len(stages) > decided > self.best[0]:
            recording = Console(record=True, width=WIDTH, height=HEIGHT, file=io.StringIO())
            recording.print(drawn)
            type(self).best = (decided, recording.export_svg(title="make demo"))
        return drawn


def main(path: Path) -> None:
    """Run the demo and write the picture."""
    app.Screen = Recorder  # type: ignore[misc]
    console = Console(width=WIDTH, height=HEIGHT, force_terminal=True, file=io.StringIO())
    app.run_demo(console=console)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The picture must not fetch fonts from the network.
    path.write_text(re.sub(r"@font-face \{.*?\}", "", Recorder.best[1], flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
