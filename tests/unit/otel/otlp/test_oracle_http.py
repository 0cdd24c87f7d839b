"""The official exporter over HTTP is the oracle: under the same variables a receiver gets the same from our client."""

from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest

from nissa.otel.otlp.outcome import Outcome
from tests.receivers import Receiver, Response, Tls, http_receiver
from tests.unit.otel.otlp.oracle import HTTP, SIGNALS, Side, both, variables

ENDPOINTS = {
    "general": {"ENDPOINT": "{url}"},
    "general-slash": {"ENDPOINT": "{url}/"},
    "general-path": {"ENDPOINT": "{url}/tenant/a/"},
    "own": {"{S}_ENDPOINT": "{url}/v1/{s}"},
    "own-without-path": {"{S}_ENDPOINT": "{url}"},
    "own-other-path": {"{S}_ENDPOINT": "{url}/otlp/"},
    "own-query": {"{S}_ENDPOINT": "{url}/v1/{s}?api_key=a%20b&x="},
    "own-wins": {"{S}_ENDPOINT": "{url}/own", "ENDPOINT": "http://127.0.0.1:9"},
    "empty-own": {"{S}_ENDPOINT": "", "ENDPOINT": "{url}"},
    "other-signal": {"XLOGS_ENDPOINT": "http://127.0.0.1:9", "ENDPOINT": "{url}"},
    "upper-case": {"ENDPOINT": "HTTP://LOCALHOST:{port}"},
    "user-info": {"ENDPOINT": "http://us%20er:pass%40word@127.0.0.1:{port}"},
    "user-info-and-header": {"ENDPOINT": "http://u:p@127.0.0.1:{port}", "HEADERS": "authorization=Bearer%20x"},
}
HEADERS = {
    "general": {"HEADERS": "x-key=value,X-Upper=Value"},
    "own": {"HEADERS": "x-key=general,x-other=1", "{S}_HEADERS": "x-key=own"},
    "encoded": {"HEADERS": "authorization=Basic%20dXNlcjpwYXNz,x-text=a%2Cb%3Bc%22d%22"},
    "spaces": {"HEADERS": " x-a = b ,\tx-c=d e f\t, ,x-g=h"},
    "equals": {"HEADERS": "x-key=a=b==,x-empty="},
    "latin": {"HEADERS": "x-key=caf%C3%A9"},
    "twice": {"HEADERS": "x-key=1,X-KEY=2"},
    "broken": {"HEADERS": 'broken,=x,x-key=1,x y=2,x-q="q",x-s=a;b,x-u=\u00e9'},
    "encoded-name": {"HEADERS": "x%2Dkey=1"},
    "overriding": {"HEADERS": "content-type=application/other,accept-encoding=identity"},
    "encoding": {"HEADERS": "content-encoding=identity", "COMPRESSION": "none"},
}
COMPRESSION = {
    "none": {"COMPRESSION": "none"},
    "gzip": {"COMPRESSION": "gzip"},
    "deflate": {"COMPRESSION": "deflate"},
    "upper-case": {"COMPRESSION": " GZIP "},
    "own": {"COMPRESSION": "gzip", "{S}_COMPRESSION": "deflate"},
    "own-none": {"COMPRESSION": "gzip", "{S}_COMPRESSION": "none"},
}


def compared(
    monkeypatch: pytest.MonkeyPatch, signal: str, given: dict[str, str], receiver: Receiver
) -> tuple[Side, Side]:
    """Set variables, send with both sides, and return what they did."""
    for name, value in variables(signal, given, url=receiver.url, port=receiver.port).items():
        monkeypatch.setenv(name, value)
    theirs, ours, _ = both(signal, HTTP, [receiver])
    return theirs, ours


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("case", ENDPOINTS)
def test_endpoints(monkeypatch: pytest.MonkeyPatch, signal: str, case: str) -> None:
    with http_receiver() as receiver:
        theirs, ours = compared(monkeypatch, signal, ENDPOINTS[case], receiver)
    assert ours == theirs
    assert (theirs.delivered, len(theirs.requests)) == (True, 1)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("case", [*HEADERS, *(f"compression-{name}" for name in COMPRESSION)])
def test_headers_and_compression(monkeypatch: pytest.MonkeyPatch, signal: str, case: str) -> None:
    given = HEADERS.get(case) or COMPRESSION[case.removeprefix("compression-")]
    with http_receiver() as receiver:
        theirs, ours = compared(monkeypatch, signal, {"ENDPOINT": "{url}", **given}, receiver)
    assert ours == theirs
    assert (theirs.delivered, len(theirs.requests)) == (True, 1)


@pytest.mark.parametrize(
    ("signal", "given"),
    [("traces", {"TIMEOUT": "0.3"}), *((signal, {"{S}_TIMEOUT": "0.3", "TIMEOUT": "20"}) for signal in SIGNALS)],
)
def test_timeouts(monkeypatch: pytest.MonkeyPatch, signal: str, given: dict[str, str]) -> None:
    with http_receiver(Response(wait=10)) as receiver:
        began = monotonic()
        for name, value in variables(signal, {"ENDPOINT": "{url}", **given}, url=receiver.url).items():
            monkeypatch.setenv(name, value)
        theirs, ours, result = both(signal, HTTP, [receiver], attempts=1)
        assert monotonic() - began < 5
    assert ours == theirs
    assert theirs.delivered is False
    assert result is not None
    assert result.outcome is Outcome.RETRY


TLS = {
    "authority": ({"CERTIFICATE": "{folder}/ca.pem"}, False, True),
    "own-authority": ({"{S}_CERTIFICATE": "{folder}/ca.pem", "CERTIFICATE": "{folder}/other/ca.pem"}, False, True),
    "other-authority": ({"CERTIFICATE": "{folder}/other/ca.pem"}, False, False),
    "system": ({}, False, False),
    "bundle": ({"REQUESTS_CA_BUNDLE": "{folder}/ca.pem"}, False, True),
    "bundle-wins": ({"CURL_CA_BUNDLE": "{folder}/other/ca.pem", "CERTIFICATE": "{folder}/ca.pem"}, False, False),
    "mutual": (
        {
            "CERTIFICATE": "{folder}/ca.pem",
            "CLIENT_KEY": "{folder}/client.key",
            "CLIENT_CERTIFICATE": "{folder}/client.pem",
        },
        True,
        True,
    ),
    "mutual-own": (
        {
            "CERTIFICATE": "{folder}/ca.pem",
            "{S}_CLIENT_KEY": "{folder}/client.key",
            "{S}_CLIENT_CERTIFICATE": "{folder}/client.pem",
        },
        True,
        True,
    ),
    "mutual-missing": ({"CERTIFICATE": "{folder}/ca.pem"}, True, False),
    "mutual-other": (
        {
            "CERTIFICATE": "{folder}/ca.pem",
            "CLIENT_KEY": "{folder}/other/client.key",
            "CLIENT_CERTIFICATE": "{folder}/other/client.pem",
        },
        True,
        False,
    ),
}


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("case", TLS)
def test_tls(monkeypatch: pytest.MonkeyPatch, certificates: Path, signal: str, case: str) -> None:
    given, mutual, arrives = TLS[case]
    with http_receiver(tls=Tls(certificates, mutual=mutual)) as receiver:
        named = {"ENDPOINT": "{url}", "TIMEOUT": "0.7", **given}
        for name, value in variables(signal, named, url=receiver.url, folder=certificates).items():
            monkeypatch.setenv(name, value)
        theirs, ours, result = both(signal, HTTP, [receiver], attempts=1)
    assert ours == theirs
    assert theirs.delivered is arrives
    assert result is not None
    assert result.outcome is (Outcome.DELIVERED if arrives else Outcome.RETRY)
    if arrives and mutual:
        assert ours.requests[0][-1] == "trainer"


PROXIES = {
    "http": ({"http_proxy": "{proxy}"}, "proxy"),
    "upper-case": ({"HTTP_PROXY": "{proxy}"}, "proxy"),
    "all": ({"ALL_PROXY": "{proxy}"}, "proxy"),
    "credentials": ({"HTTP_PROXY": "http://user:s3cret@127.0.0.1:{proxy_port}"}, "proxy"),
    "for-https-only": ({"HTTPS_PROXY": "{proxy}"}, "receiver"),
    "no-proxy": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "example.org,127.0.0.1"}, "receiver"),
    "no-proxy-at-all": ({"HTTP_PROXY": "{proxy}", "no_proxy": "*"}, "receiver"),
    "no-proxy-for-others": ({"HTTP_PROXY": "{proxy}", "NO_PROXY": "example.org"}, "proxy"),
    "away": ({"HTTP_PROXY": "http://127.0.0.1:9"}, None),
}


@pytest.mark.parametrize("case", PROXIES)
def test_proxies(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    given, arrives_at = PROXIES[case]
    with http_receiver() as receiver, http_receiver() as proxy:
        named = {"ENDPOINT": "{url}", "TIMEOUT": "0.7", **given}
        values = {"url": receiver.url, "proxy": proxy.url, "proxy_port": proxy.port}
        for name, value in variables("traces", named, **values).items():
            monkeypatch.setenv(name, value)
        theirs, ours, result = both("traces", HTTP, [receiver, proxy], attempts=1)
        arrived = {"receiver": receiver.got, "proxy": proxy.got}.get(str(arrives_at), [])
    assert ours == theirs
    assert theirs.delivered is (arrives_at is not None)
    assert len(arrived) == (arrives_at is not None)
    assert "s3cret" not in repr(result)


def test_a_tunnel_through_a_proxy(monkeypatch: pytest.MonkeyPatch, certificates: Path) -> None:
    with http_receiver(tls=Tls(certificates)) as receiver, http_receiver() as proxy:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.7")
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:s3cret@127.0.0.1:{proxy.port}")
        theirs, ours, result = both("logs", HTTP, [proxy], attempts=1)
        (tunnel,) = {each[0] for each in ours.requests}
    assert set(map(str, ours.requests)) == set(map(str, theirs.requests))  # The official exporter asks twice.
    assert tunnel == f"127.0.0.1:{receiver.port}"
    assert ours.delivered is theirs.delivered is False
    assert result is not None
    assert "s3cret" not in repr(result)


def test_the_netrc_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password s3cret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with http_receiver(Response(400, {"Content-Type": "text/plain"}, b"no: dXNlcjpzM2NyZXQ=")) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        theirs, ours, result = both("logs", HTTP, [receiver])
    assert ours == theirs
    assert ours.requests[0][1]["authorization"] == "Basic dXNlcjpzM2NyZXQ="
    assert result is not None
    assert result.reason == "400 Bad Request: no: ***"


REDIRECTS = (301, 302, 303, 307, 308)


@pytest.mark.parametrize(
    "status", [200, 202, 204, 400, 401, 403, 404, 408, 413, 429, 500, 501, 502, 503, 504, *REDIRECTS]
)
def test_statuses_are_delivered_retried_or_refused(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    # A pause of zero seconds, so that the official exporter tries again at once where it would.
    first = Response(status, {"Retry-After": "0"})
    with http_receiver(first, Response()) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        theirs, ours, result = both("traces", HTTP, [receiver])
    assert ours.requests == theirs.requests
    assert result is not None
    if status in REDIRECTS:
        assert (theirs.delivered, ours.delivered) == (True, False), "the official exporter reports a loss as success"
        assert (result.outcome, result.endpoint_fault) == (Outcome.REFUSED, True)
    else:
        assert ours.delivered == theirs.delivered


@pytest.mark.parametrize("pause", ["0.3", "1", "DATE"])
def test_the_official_exporter_waits_as_long_as_our_result_says(monkeypatch: pytest.MonkeyPatch, pause: str) -> None:
    from email.utils import formatdate  # noqa: PLC0415 - used once
    from time import time  # noqa: PLC0415

    value = formatdate(time() + 2, usegmt=True) if pause == "DATE" else pause
    with http_receiver(Response(503, {"Retry-After": value}), Response()) as receiver, ExitStack() as stack:
        stack.callback(receiver.over.set)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        began = monotonic()
        theirs, ours, result = both("traces", HTTP, [receiver])
        seconds = monotonic() - began
    assert ours == theirs
    assert result is not None
    assert result.retry_after is not None
    if pause != "DATE":
        assert result.retry_after == float(pause)
        assert seconds >= float(pause)


@pytest.mark.full
def test_what_the_official_exporter_drops_for_its_size_we_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        theirs, ours, result = both("logs", HTTP, [receiver], text="x" * (64 * 2**20))
    assert ours == theirs == Side([], delivered=False)
    assert result is not None
    assert result.outcome is Outcome.REFUSED
