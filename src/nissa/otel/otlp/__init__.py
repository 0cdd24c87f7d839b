"""OTLP client for grpc, http/protobuf and http/json, configured by the standard ``OTEL_EXPORTER_OTLP_*`` variables."""
