"""Protobuf messages of the three signals, and OTLP's mapping between them and JSON.

OTLP's JSON differs from protobuf's in the ids of traces and spans, which are hexadecimal instead of base64, and in
enumerations, which are numbers.
"""

import base64
import json
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from google.protobuf.json_format import (  # type: ignore[import-untyped]  # it has no types of its own
    Error,
    MessageToDict,
    ParseDict,
)
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # the same

_SERVICES: Final = {"traces": ("trace", "Trace"), "metrics": ("metrics", "Metrics"), "logs": ("logs", "Logs")}
_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})


def method(signal: str) -> str:
    """Return the path of the gRPC method ``Export`` of a signal."""
    package, name = _SERVICES[signal]
    return f"/opentelemetry.proto.collector.{package}.v1.{name}Service/Export"


def request(signal: str, payload: bytes = b"") -> Any:
    """Return a serialized request as a message.

    Raises:
        ValueError: The bytes are not a request.
    """
    return _parsed(_message(signal, "Request"), payload)


def to_json(message: Any) -> bytes:
    """Return a request as OTLP JSON."""
    tree = MessageToDict(message, use_integers_for_enums=True)
    return json.dumps(_with_ids(tree, _hexadecimal), ensure_ascii=False, separators=(",", ":")).encode()


def from_json(signal: str, tree: dict[str, Any]) -> Any:
    """Return OTLP JSON, already parsed, as a message; unknown fields are ignored.

    Lone surrogates, which JSON can escape and protobuf cannot encode, become question marks.

    Raises:
        ValueError: It is not a request.
    """
    binary = _with_ids(tree, _base64)
    try:
        return _from_protobuf_json(signal, binary)
    except ValueError:
        encodable = _encodable(binary)
        if encodable == binary:
            raise
        return _from_protobuf_json(signal, encodable)


def _from_protobuf_json(signal: str, tree: Any) -> Any:
    try:
        return ParseDict(tree, _message(signal, "Request"), ignore_unknown_fields=True)
    except (Error, UnicodeError) as error:
        raise ValueError(str(error)) from error


def _encodable(node: Any) -> Any:
    if isinstance(node, str):
        return node.encode(errors="replace").decode()
    if isinstance(node, list):
        return [_encodable(each) for each in node]
    return {name: _encodable(value) for name, value in node.items()} if isinstance(node, dict) else node


def partial_success(signal: str, body: bytes, content_type: str) -> tuple[int, str]:
    """Return the number of rejected items in a response, and the receiver's message.

    A response that cannot be read reports nothing: the status has already said that the request was accepted.
    """
    try:
        if "json" in content_type:
            partial = dict(json.loads(body or b"{}").get("partialSuccess") or {})
        else:
            answer = _parsed(_message(signal, "Response"), body)
            partial = {field.json_name: value for field, value in answer.partial_success.ListFields()}
        rejected = next((int(value) for name, value in partial.items() if name.startswith("rejected")), 0)
        return max(rejected, 0), str(partial.get("errorMessage", ""))
    except Exception:  # noqa: BLE001 - a hostile response raises anything, RecursionError and OverflowError included
        return 0, ""


def _message(signal: str, direction: str) -> Any:
    package, name = _SERVICES[signal]
    module = import_module(f"opentelemetry.proto.collector.{package}.v1.{package}_service_pb2")
    return getattr(module, f"Export{name}Service{direction}")()


def _parsed(message: Any, payload: bytes) -> Any:
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    return message


def _with_ids(node: Any, convert: Callable[[str], str]) -> Any:
    """Return a tree of JSON with converted ids."""
    if isinstance(node, list):
        return [_with_ids(each, convert) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        name: convert(value) if name in _IDS and isinstance(value, str) else _with_ids(value, convert)
        for name, value in node.items()
    }


def _hexadecimal(value: str) -> str:
    return base64.b64decode(value).hex()


def _base64(value: str) -> str:
    return base64.b64encode(bytes.fromhex(value)).decode()
