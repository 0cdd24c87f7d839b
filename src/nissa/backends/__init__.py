"""Backends: where events and measurements end up."""
