"""Delivery of telemetry to exporters and files."""
