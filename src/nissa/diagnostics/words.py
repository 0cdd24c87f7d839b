"""Phrases shared by several sentences."""

from collections.abc import Sized


def in_layers(layers: Sized) -> str:
    """Return "1 layer" or "3 layers"."""
    return f"{len(layers)} layer{'' if len(layers) == 1 else 's'}"
