"""Which run is meant."""

import os
from pathlib import Path

import pytest

from nissa.errors import ConfigurationError
from nissa.recordings import find_run
from tests import otlp


def test_a_folder_of_runs_means_the_one_that_wrote_last(tmp_path: Path) -> None:
    for name, seconds in (("b", 100), ("c", 300), ("a", 200)):
        os.utime(otlp.write(tmp_path / name, traces=["{}"]) / "traces.jsonl", (seconds, seconds))
    assert find_run(tmp_path) == tmp_path / "c"


def test_a_run_means_itself(tmp_path: Path) -> None:
    assert find_run(otlp.write(tmp_path / "r", logs=["{}"])) == tmp_path / "r"


@pytest.mark.parametrize("name", ["missing", "."])
def test_where_there_is_none_the_message_says_where_runs_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="nissa-runs/<run id>"):
        find_run(tmp_path / name)
