"""Checks of the telemetry setup: versions, settings, endpoints, clocks and collectors, each with advice."""
