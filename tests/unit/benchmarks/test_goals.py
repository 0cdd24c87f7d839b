"""Whether a goal is met."""

from math import inf

import pytest

from benchmarks.goals import Judged, Verdict, line, of_kernels, of_live, of_others, of_profiles, on_a_gpu
from benchmarks.steps.statistics import Estimate


def step(
    way: str, *, model: str = "gpt", ratio: Estimate | None = None, sample: Estimate | None = None
) -> dict[str, str]:
    ratio, sample = ratio or Estimate(0, 0, 0), sample or Estimate(0, 0, 0)
    return {
        "model": model,
        "way": way,
        "ratio": str(ratio.value),
        "ratio_low": str(ratio.low),
        "ratio_high": str(ratio.high),
        "sample_ms": str(sample.value),
        "sample_low": str(sample.low),
        "sample_high": str(sample.high),
    }


def within(way: str, **found: Estimate) -> dict[str, str]:
    known = {"own": Estimate(0, 0, 0), "told": Estimate(0, 0, 0), "factor": Estimate(1, 1, 1)} | found
    columns = [
        (f"{name}{end}", str(value))
        for name, each in known.items()
        for end, value in (("", each.value), ("_low", each.low), ("_high", each.high))
    ]
    return {"model": "gpt", "way": way, **dict(columns)}


@pytest.mark.parametrize(
    ("measured", "verdict", "factor"),
    [
        (Estimate(0.004, 0.003, 0.005), Verdict.MET, 0.5),
        (Estimate(0.004, -0.003, 0.02), Verdict.OPEN, 2.0),
        (Estimate(0.004, -0.003, 0.01), Verdict.OPEN, 1.0),
        (Estimate(0.03, 0.02, 0.04), Verdict.MISSED, 3.0),
        (Estimate(-0.002, -0.003, -0.001), Verdict.MET, -0.1),
        (Estimate(0.004, -inf, inf), Verdict.OPEN, inf),
    ],
)
def test_a_ceiling_is_met_only_below_its_whole_interval(measured: Estimate, verdict: Verdict, factor: float) -> None:
    (goal,) = of_profiles([step("standard", ratio=measured), step("bare")])
    assert goal.verdict is verdict
    assert goal.factor == pytest.approx(max(factor, 0.0))


@pytest.mark.parametrize(
    ("other", "verdict"),
    [
        (Estimate(500, 450, 550), Verdict.MET),
        (Estimate(300, 150, 450), Verdict.OPEN),
        (Estimate(30, 25, 35), Verdict.MISSED),
    ],
)
def test_cheaper_is_judged_by_the_interval_of_the_factor(other: Estimate, verdict: Verdict) -> None:
    ours = step("standard, every step", sample=Estimate(10, 9, 11))
    (goal,) = of_others([ours, step("hooks of the document", sample=other), step("pulsegrad", sample=other)])
    assert goal.verdict is verdict


def test_where_time_cannot_tell_others_are_held_against_our_own_code() -> None:
    ours = step("standard, every step", sample=Estimate(10, -90, 110)) | {"bare_ms": "400"}
    others = step("wandb.watch", sample=Estimate(160, 150, 170))
    (goal,) = of_others([ours, others], [within("standard, every step", own=Estimate(0.02, 0.019, 0.021))])
    assert goal.verdict is Verdict.OPEN
    assert goal.from_within is not None
    assert goal.from_within.measured.value == pytest.approx(160 / 8)
    assert goal.from_within.verdict is Verdict.MET


def test_cheaper_is_met_where_nothing_tells_our_cost_from_zero() -> None:
    ours = step("standard, every step", sample=Estimate(1, -9, 11))
    (goal,) = of_others([ours, step("hooks of the document", sample=Estimate(500, 490, 510))])
    assert goal.measured.high == inf
    assert goal.verdict is Verdict.MET


@pytest.mark.parametrize(
    ("ratio", "asked"), [(Estimate(0.004, -0.02, 0.03), True), (Estimate(0.02, 0.015, 0.03), False)]
)
def test_our_own_code_is_asked_only_where_time_leaves_it_open(ratio: Estimate, asked: bool) -> None:
    row = step("standard", ratio=ratio) | {"reads": "0", "operations": "1200"}
    (goal,) = of_profiles([row], [within("standard", own=Estimate(0.003, 0.002, 0.004))])
    assert goal.counts == "0 reads, 1,200 operations"
    assert (goal.from_within is not None) == asked
    assert goal.verdict is (Verdict.OPEN if asked else Verdict.MISSED)
    if goal.from_within is not None:
        assert goal.from_within.verdict is Verdict.MET


def test_results_without_own_time_and_counts_are_judged_by_time() -> None:
    (goal,) = of_profiles([step("standard", ratio=Estimate(0.004, -0.02, 0.03))])
    assert goal.from_within is None
    assert goal.counts == ""


def test_a_run_is_compared_with_time_and_where_that_cannot_tell_with_our_own_code() -> None:
    ours = within("research", told=Estimate(0.1, 0.09, 0.11), factor=Estimate(0.5, 0.45, 0.55))
    (goal,) = of_live([ours], [step("research", ratio=Estimate(0.2, -0.3, 0.7))])
    assert goal.measured.value == pytest.approx(0.1 / (0.2 / 1.2))
    assert goal.verdict is Verdict.OPEN
    assert goal.from_within is not None
    assert goal.from_within.verdict is Verdict.MISSED


def test_only_profiles_tell_of_themselves() -> None:
    rows = [step("standard, every step"), step("minimal", model="convnet")]
    assert not list(of_live([within("standard, every step"), within("minimal")], rows))


def test_models_are_compared_with_themselves() -> None:
    rows = [step("standard, every step", model="convnet"), step("wandb.watch", model="gpt")]
    assert not list(of_others(rows))


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        (Estimate(0.1, 0.08, 0.12), Verdict.MET),
        (Estimate(0.1, 0.05, 0.12), Verdict.OPEN),
        (Estimate(0.04, 0.03, 0.05), Verdict.MISSED),
        (Estimate(0.2, 0.18, 0.22), Verdict.MISSED),
    ],
)
def test_agreement_is_judged_at_both_ends(told: Estimate, verdict: Verdict) -> None:
    exactly = Estimate(1 / 9, 1 / 9, 1 / 9)  # a tenth of watched time
    (goal,) = of_live([within("standard", told=told)], [step("standard", ratio=exactly)])
    assert goal.verdict is verdict


def test_what_is_missed_is_missed_by_its_value() -> None:
    assert Judged("x", "gpt", Estimate(5, 4, 8), least=10).factor == 2
    assert Judged("x", "gpt", Estimate(30, 20, 40), most=10).factor == 3


def test_a_line_tells_proportional_from_fixed() -> None:
    x = [1.0, 10.0, 100.0]
    proportional = line(x, [2.0, 20.0, 200.0])
    assert proportional.exponent == pytest.approx(1)
    assert proportional.explained == pytest.approx(1)
    assert proportional.slope == pytest.approx(2)
    assert line(x, [7.0, 16.0, 106.0]).fixed == pytest.approx(6)
    assert line(x, [1.0, 100.0, 10_000.0]).exponent == pytest.approx(2)


def kernel(device: str, statistics: str, ratio: Estimate, **other: str) -> dict[str, str]:
    return {
        "device": device,
        "kernel": "compiled",
        "statistics": statistics,
        "dtype": "float32",
        "tensors": "1",
        "elements": str(2**24),
        "threads": "2" if device == "cpu" else "",
        "ratio": str(ratio.value),
        "ratio_low": str(ratio.low),
        "ratio_high": str(ratio.high),
    } | other


def test_a_kernel_on_a_cpu_is_judged_by_what_a_copy_takes() -> None:
    rows = [
        kernel("cpu", "buckets", Estimate(2.9, 2.8, 3.0), threads="1"),
        kernel("cpu", "buckets", Estimate(2.0, 1.9, 2.1)),
        kernel("cpu", "moments", Estimate(1.0, 0.9, 1.1)),
        kernel("cpu", "buckets", Estimate(9.0, 8.9, 9.1), kernel="reference"),
        kernel("cpu", "buckets", Estimate(9.0, 8.9, 9.1), dtype="float16"),
        kernel("cpu", "buckets", Estimate(9.0, 8.9, 9.1), tensors="60"),
        kernel("cuda", "buckets", Estimate(0.7, 0.6, 0.8)),
    ]
    one, two = of_kernels(rows)
    assert (one.verdict, two.verdict) == (Verdict.MISSED, Verdict.MET)
    assert [one.factor, two.factor] == pytest.approx([1.16, 0.84])
    assert one.model == "16.8 M float32"
    assert "one thread" in one.what
    assert "2 threads" in two.what


def test_a_kernel_on_a_gpu_is_judged_by_bandwidth() -> None:
    rows = [
        kernel("cuda", "buckets", Estimate(0.7, 0.6, 0.8)),  # of which a copy reads and writes, and this reads
        kernel("cuda", "moments", Estimate(0.7, 0.65, 0.8)),
        kernel("cpu", "buckets", Estimate(2.0, 1.9, 2.1)),
    ]
    buckets, moments = of_kernels(rows, "cuda")
    assert [buckets.measured.low, buckets.measured.value] == pytest.approx([0.625, 0.5 / 0.7])
    assert (buckets.verdict, moments.verdict) == (Verdict.MET, Verdict.MISSED)


def test_the_goals_on_a_gpu_are_told_where_there_is_none() -> None:
    told = dict(on_a_gpu())
    assert told["`minimal`"] == "below 0.10 %"
    assert list(told.values())[-2:] == ["above 60 %", "above 85 %"]
