"""Metric streams: recording, storage, and conversion to OTLP points."""
