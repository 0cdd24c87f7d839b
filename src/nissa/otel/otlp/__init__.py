"""OTLP client for grpc, http/protobuf and http/json, configured by the standard ``OTEL_EXPORTER_OTLP_*`` variables."""

from nissa.otel.otlp.client import OtlpClient as OtlpClient
from nissa.otel.otlp.outcome import Outcome as Outcome
from nissa.otel.otlp.outcome import SendResult as SendResult
from nissa.otel.otlp.settings import OtlpSettings as OtlpSettings
