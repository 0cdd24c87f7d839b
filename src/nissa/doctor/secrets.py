"""Redaction of secrets from settings in printed output."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from urllib.parse import unquote

from nissa.doctor.check_result import CheckResult
from nissa.otel.otlp.redaction import Redactor, secrets_of_headers, secrets_of_url, user_info_of_url
from nissa.otel.otlp.settings import ENDPOINTS


class Secrets:
    """Redacts header values, and user info and queries of URLs, from text.

    Args:
        environ: Environment variables; values of ``OTEL_*_HEADERS``, queries of endpoints, and user info of
            all URLs are secret.
        urls: Further URLs, such as command-line arguments.
    """

    def __init__(self, environ: Mapping[str, str], urls: Iterable[str] = ()) -> None:
        self._redactor = Redactor(_secrets(environ, urls))

    def hide(self, text: str) -> str:
        """Return the text with all secrets replaced."""
        return self._redactor.hide(text)

    def cleared(self, finding: CheckResult) -> CheckResult:
        """Return the finding with all secrets replaced."""
        return replace(finding, found=self.hide(finding.found), advice=self.hide(finding.advice))


def _secrets(environ: Mapping[str, str], urls: Iterable[str]) -> Iterator[str]:
    for name, value in environ.items():
        if name.startswith("OTEL_") and name.endswith("_HEADERS"):
            yield from secrets_of_headers(_values(value))
        if name in ENDPOINTS:
            yield from secrets_of_url(value)
        elif "://" in value:
            yield from user_info_of_url(value)
    for url in urls:
        yield from secrets_of_url(url)


def _values(headers: str) -> Iterator[str]:
    """Yield what may be a value of a header, raw and URL-decoded: after the equals sign, or all of an entry without one."""
    for entry in headers.split(","):
        name, equals, value = entry.partition("=")
        text = (value if equals else name).strip()
        yield from (text, unquote(text))
