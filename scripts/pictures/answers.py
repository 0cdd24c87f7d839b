"""Results of the queries of a board: numbers from Prometheus, traces from Jaeger."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

from nissa.semconv import spans as span_names

Json = dict[str, Any]

RATE_INTERVAL: Final = "20s"
"""Of a run that lasts a minute and exports every 5 s, where Grafana would take minutes of a longer one."""
_POINTS: Final = 240


@dataclass(frozen=True, slots=True)
class Moment:
    """A recorded run and the addresses of the servers with its telemetry.

    Args:
        prometheus: Its address.
        jaeger: Its address.
        service: The run's service.
        run: Its id.
        begin: Seconds since the Unix epoch.
        end: The same, when the run was over.
    """

    prometheus: str
    jaeger: str
    service: str
    run: str
    begin: float
    end: float

    @property
    def step(self) -> int:
        """Seconds between two points of a line."""
        return max(1, round((self.end - self.begin) / _POINTS))

    def filled(self, text: str) -> str:
        """Return a query with its variables replaced as by Grafana; variables without a choice mean "all"."""
        values = {
            "service": self.service,
            "run": self.run,
            "__rate_interval": RATE_INTERVAL,
            "__interval": f"{self.step}s",
            "__range": f"{round(self.end - self.begin)}s",
        }
        return re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], ".*"), text)

    def ask(self, target: Json) -> list[Json]:
        """Return Prometheus' result of a panel's query: samples or lines."""
        query = self.filled(target["expr"])
        if target["instant"]:
            answer = _fetch(f"{self.prometheus}/api/v1/query", query=query, time=self.end)
        else:
            address = f"{self.prometheus}/api/v1/query_range"
            answer = _fetch(address, query=query, start=self.begin, end=self.end, step=self.step)
        return list(answer["data"]["result"])

    def search(self, target: Json) -> list[list[Json]]:
        """Return the traces that Jaeger finds for a panel, newest first, each as its spans in order."""
        tags = dict(re.findall(r'([\w.]+)="([^"]*)"', self.filled(target["tags"])))
        parameters = {"service": self.service, "operation": target["operation"], "limit": target["limit"]}
        found = _fetch(f"{self.jaeger}/api/traces", **parameters, tags=json.dumps(tags))["data"]
        return sorted((list(_in_order(trace)) for trace in found), key=lambda spans: -spans[0]["startTime"])


def _fetch(address: str, **parameters: str | float) -> Any:
    with urlopen(f"{address}?{urlencode(parameters)}", timeout=30) as answer:  # noqa: S310 - a loopback address
        return json.load(answer)


def _in_order(trace: Json) -> Iterator[Json]:
    spans = [each for each in trace["spans"] if not each["operationName"].endswith(span_names.STARTED_SUFFIX)]
    yield from sorted(spans, key=lambda span: (span["startTime"], -span["duration"]))
