"""Requests that are counted, joined, split and translated."""

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]  # it has no types of its own

from nissa.otel.replay.requests import body, count, is_request, joined, message, portions

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def spans(*numbers: int, resource: str = "a") -> dict[str, Any]:
    found = [{"traceId": TRACE, "spanId": f"{number:016x}", "name": "s" * 50} for number in numbers]
    scopes = [{"scope": {"name": "nissa"}, "spans": found}]
    return {"resourceSpans": [{"resource": {"attributes": [], "schema": resource}, "scopeSpans": scopes}]}


def metrics(**kinds: int) -> dict[str, Any]:
    found = [
        {
            "name": kind,
            "unit": "s",
            kind: {"aggregationTemporality": 2, "dataPoints": [{"n": n} for n in range(points)]},
        }
        for kind, points in kinds.items()
    ]
    return {"resourceMetrics": [{"resource": {}, "scopeMetrics": [{"scope": {}, "metrics": found}]}]}


def test_items_are_counted_and_not_what_holds_them() -> None:
    assert count("traces", joined("traces", [spans(1, 2), spans(3, resource="b")])) == 3
    assert count("metrics", metrics(gauge=4, exponentialHistogram=2, summary=1)) == 7
    assert count("traces", {"resourceSpans": []}) == 0


def test_parts_have_everything_once_in_order_and_each_has_its_surroundings() -> None:
    whole = joined("traces", [spans(1, 2, 3), spans(*range(4, 30), resource="b")])
    parts = list(portions("traces", whole, 1000))
    assert len(parts) > 4
    assert all(len(body(part)) <= 1000 for part in parts)
    flat = [
        (resource["resource"]["schema"], scope["scope"]["name"], int(span["spanId"], 16))
        for part in parts
        for resource in part["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert flat == [("a" if number < 4 else "b", "nissa", number) for number in range(1, 30)]


def test_points_of_one_metric_are_parted_and_each_part_says_what_they_are() -> None:
    parts = list(portions("metrics", metrics(sum=300), 700))
    found = [part["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0] for part in parts]
    assert len(found) > 3
    assert {(each["name"], each["unit"], each["sum"]["aggregationTemporality"]) for each in found} == {("sum", "s", 2)}
    assert [point["n"] for each in found for point in each["sum"]["dataPoints"]] == list(range(300))


def test_an_item_that_is_too_large_goes_alone() -> None:
    assert [count("traces", part) for part in portions("traces", spans(1, 2), 10)] == [1, 1]


def test_protobuf_has_the_ids_and_the_numbers_of_json() -> None:
    span = {"traceId": TRACE, "spanId": SPAN, "parentSpanId": "00f067aa0ba902b7", "startTimeUnixNano": str(2**60 + 1)}
    span["links"] = [{"traceId": TRACE, "spanId": SPAN}]  # type: ignore[assignment]  # as JSON has it
    request = spans()
    request["resourceSpans"][0]["scopeSpans"][0]["spans"] = [span]
    (found,) = message("traces", request).resource_spans[0].scope_spans[0].spans
    assert (found.trace_id.hex(), found.span_id.hex(), found.parent_span_id.hex()) == (TRACE, SPAN, "00f067aa0ba902b7")
    assert (found.links[0].trace_id.hex(), found.start_time_unix_nano) == (TRACE, 2**60 + 1)


def test_protobuf_has_exemplars_and_numbers_that_are_none() -> None:
    point = {"timeUnixNano": "5", "asDouble": "NaN", "exemplars": [{"traceId": TRACE, "spanId": SPAN, "asInt": "7"}]}
    scopes = [{"metrics": [{"name": "loss", "gauge": {"dataPoints": [point]}}]}]
    found = message("metrics", {"resourceMetrics": [{"scopeMetrics": scopes}]})
    (said,) = MessageToDict(found)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["gauge"]["dataPoints"]
    assert (said["asDouble"], said["exemplars"][0]["asInt"]) == ("NaN", "7")
    exemplar = found.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].exemplars[0]
    assert exemplar.trace_id.hex() == TRACE


@pytest.mark.parametrize(
    "value", [None, [], 3, {}, {"resourceLogs": []}, {"resourceSpans": {}}, {"resourceSpans": [3]}]
)
def test_what_is_no_request_is_told_from_one(value: Any) -> None:
    assert not is_request("traces", value)
    assert is_request("traces", json.loads(body(spans(1))))
