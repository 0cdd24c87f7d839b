"""Resumes a seed that another process left, and prints what it did as JSON.

Argument: the file with the seed's state. Run it with a sampler that drops every new trace: a seed that germinates here
has no spans, and the one that is resumed goes on in the trace that was sampled before.
"""

import json
import sys
from pathlib import Path
from typing import Any

import nissa
from nissa import Stage


def main(state: Path) -> dict[str, Any]:
    with nissa.start("standard", strict=False, console__enabled=False) as run:
        env = run.environment(0)
        seed = env.resume_seed(json.loads(state.read_text()))
        with env.epoch(9):
            seed.advance(Stage.BLENDING, alpha=0.2)
            unseen = env.germinate("unseen", blueprint="unseen-blueprint", slot="e")
            unseen.cull(reason="nobody looks")
        seed.fossilize(improvement=0.02)
        return {"trace_id": seed.trace_id, "span_id": f"{seed.ids.span_id:016x}", "history": seed.history}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
