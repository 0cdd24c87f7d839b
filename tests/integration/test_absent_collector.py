"""A collector that is not there costs a run nothing but its telemetry, and the process a bounded end."""

from pathlib import Path

import pytest

from tests.support import finish, script

_TRAIN = """
    import atexit, sys, time
    import nissa

    atexit.register(lambda: print("end", time.monotonic() - began))
    with nissa.start("standard", console__enabled=False, limits__exit_timeout_seconds=2) as run:
        with run.epoch(0):
            run.germinate("s")
        began = time.monotonic()
    sys.exit(5)
"""


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_end_is_bounded_and_the_exit_status_kept(tmp_path: Path, protocol: str) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    status, out, err = finish(script(_TRAIN, folder=tmp_path, environ=environ))
    assert status == 5, err
    # The bound is a setting of the run, not a claim about speed: the bare SDK takes 12 s and more.
    assert float(out.split()[-1]) < 2 + 2
