"""Backends: exporters of events and measurements."""
