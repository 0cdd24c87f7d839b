"""A whole run, its files and a replay of them: credentials of the endpoint and of headers appear nowhere."""

from pathlib import Path

import pytest

from tests.receivers import Response, http_receiver
from tests.unit.otel.test_providers_of_a_process import run

SECRETS = ("s3cret-password", "s3cret-key", "s3cret-header")
SCRIPT = """
import logging, nissa
logging.basicConfig(level=logging.DEBUG)
with nissa.start(run_id="r") as run:
    print(run)
    with run.epoch(0):
        run.validate(loss=1.0, accuracy=0.5)
    run.flush(5)
    print(nissa.get_hub(), run.directory)
"""


@pytest.mark.parametrize("status", [200, 401, *(pytest.param(each, marks=pytest.mark.full) for each in (400, 503))])
def test_credentials_are_sent_and_nowhere_else(tmp_path: Path, status: int) -> None:
    repeated = f"no: {SECRETS[0]}, {SECRETS[1]} and Bearer {SECRETS[2]}".encode()
    with http_receiver(Response(status, {"Content-Type": "text/plain"}, repeated)) as receiver:
        done = run(
            tmp_path,
            SCRIPT,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://user:{SECRETS[0]}@127.0.0.1:{receiver.port}?api_key={SECRETS[1]}",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_HEADERS=f"x-key=Bearer%20{SECRETS[2]}",
            NISSA_FILES__KEEP="true",
            NISSA_LIMITS__EXIT_TIMEOUT_SECONDS="1",
        )
    assert done.returncode == 0, done.stderr
    assert {each.headers["x-key"] for each in receiver.got} == {f"Bearer {SECRETS[2]}"}
    assert all(f"?api_key={SECRETS[1]}" in each.path for each in receiver.got)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".spool" for path in files)
    written = [done.stdout.encode(), done.stderr.encode(), *(path.read_bytes() for path in files)]
    written += [each.plain for each in receiver.got]
    assert [secret for secret in SECRETS for text in written if secret.encode() in text] == []
    warned = [line for line in done.stderr.splitlines() if "127.0.0.1" in line and not line.startswith("nissa:")]
    assert bool(warned) is (status != 200), "the destination itself is named"
