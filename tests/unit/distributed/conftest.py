from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import distributed


@pytest.fixture
def group(tmp_path: Path) -> Iterator[distributed.ProcessGroup]:
    """Yield a process group of this process alone."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    assert distributed.group.WORLD is not None
    yield distributed.group.WORLD
    distributed.destroy_process_group()
