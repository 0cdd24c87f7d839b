"""What Prometheus says of the distribution of gradients is true of the gradients that the optimizer used.

A native histogram of schema s has buckets of 2**(2**-s) from bound to bound. The true quantile and the one that is
interpolated lie in the same bucket, so that they differ by less than that factor: 9 % at schema 3, which is what is
counted in, and 19 % at schema 2, which a range of more than 20 octaves is exported in.
"""

from itertools import pairwise
from math import isclose, log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.stack import Stack
from tests.stack.queries import Past
from tests.stack.training import TRANSPORTS, Transport
from tests.stack.truth import Truth, known_run
from tests.support import until

QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)
PARAMETERS = ("0.weight", "0.bias", "2.weight", "2.bias")
OCTAVES_AT_SCHEMA_3 = 160 / 8

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS, ids=str)


@pytest.fixture
def truth(stack: Stack, stack_folder: Path, transport: Transport) -> Truth:
    return known_run(stack, stack_folder, transport)


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_quantiles_of_a_parameter_are_those_of_its_gradients(truth: Truth, parameter: str) -> None:
    gradients = truth.magnitudes[parameter].ravel()
    selector = f'nissa_gradient_magnitude{{job="{truth.service}", nissa_parameter_name="{parameter}"}}'
    octaves = _complete(truth.past, selector, len(gradients))
    spread = log2(gradients.max() / gradients.min())
    assert octaves == (1 / 8 if spread < OCTAVES_AT_SCHEMA_3 else 1 / 4)
    _compare(truth.past, selector, gradients, octaves)


def test_quantiles_of_the_network_are_those_of_all_its_gradients(truth: Truth) -> None:
    gradients = np.concatenate([each.ravel() for each in truth.magnitudes.values()])
    selector = f'sum(nissa_gradient_magnitude{{job="{truth.service}"}})'
    _compare(truth.past, selector, gradients, _complete(truth.past, selector, len(gradients)))


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_every_bucket_holds_what_lies_between_its_bounds(truth: Truth, parameter: str) -> None:
    gradients = truth.magnitudes[parameter].ravel()
    selector = f'nissa_gradient_magnitude{{job="{truth.service}", nissa_parameter_name="{parameter}"}}'
    _complete(truth.past, selector, len(gradients))
    for low, high, count in _buckets(truth.past, selector):
        # Prometheus prints bounds rounded, so a value at a bound could be counted on either side; there is none.
        assert not np.isclose(gradients, [[low], [high]], rtol=1e-13, atol=0).any()
        assert ((gradients > low) & (gradients <= high)).sum() == count


def test_sums_are_those_of_the_gradients(truth: Truth) -> None:
    for parameter, gradients in truth.magnitudes.items():
        selector = f'nissa_gradient_magnitude{{job="{truth.service}", nissa_parameter_name="{parameter}"}}'
        _complete(truth.past, selector, gradients.size)
        assert truth.past.value(f"histogram_sum({selector})") == pytest.approx(gradients.sum(), rel=1e-6)


def _complete(past: Past, selector: str, count: int) -> float:
    """Wait until every gradient was counted; return how many octaves wide the buckets are."""
    until(lambda: past.value(f"histogram_count({selector})") == count, f"{count} gradients in {selector}")
    buckets = [(low, high) for low, high, _ in _buckets(past, selector)]
    assert all(before[1] <= after[0] for before, after in pairwise(buckets))
    widths = [log2(high / low) for low, high in buckets]
    width = 2.0 ** round(log2(widths[0]))
    assert all(isclose(each, width, rel_tol=1e-9) for each in widths)
    return width


def _buckets(past: Past, selector: str) -> list[tuple[float, float, float]]:
    (sample,) = past.samples(selector)
    found: list[Any] = sample["histogram"][1]["buckets"]
    return [(float(low), float(high), float(count)) for _, low, high, count in found]


def _compare(past: Past, selector: str, gradients: Any, octaves: float) -> None:
    for quantile in QUANTILES:
        true = np.quantile(gradients, quantile, method="inverted_cdf")
        said = past.value(f"histogram_quantile({quantile}, {selector})")
        assert said is not None
        assert abs(log2(said / true)) < octaves, (quantile, said, true)
