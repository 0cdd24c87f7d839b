"""What one launch found, and whether statistics are those that they should be."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np

from nissa.kernels.moments import Moments

Launch: TypeAlias = "dict[str, list[Mapping[str, Any]]]"


def scenario(launch: Launch, name: str) -> list[Mapping[str, Any]]:
    """What each rank found."""
    for rank, found in enumerate(launch[name]):
        assert "error" not in found, f"rank {rank}: {found['error']}"
    return launch[name]


def assert_same(left: Moments, right: Moments) -> None:
    for field in fields(Moments):
        if field.name != "bucket_range":
            # Sums of gradients behind a norm cancel out, so that nothing but rounding is left of some.
            exact = getattr(right, field.name).dtype == np.int64
            np.testing.assert_allclose(
                getattr(left, field.name),
                getattr(right, field.name),
                rtol=0 if exact else 1e-9,
                atol=0 if exact else 1e-12,
                err_msg=field.name,
            )
