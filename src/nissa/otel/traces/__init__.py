"""Spans of seeds and epochs."""
