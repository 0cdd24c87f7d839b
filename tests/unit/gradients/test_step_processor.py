from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nissa.events import SpanIds
from nissa.gradients.capture import Capture, Measures, Sampled
from nissa.gradients.losses import Losses
from nissa.gradients.packing import Packing, pack
from nissa.gradients.step_metadata import (
    CLIP_NORM,
    LOSS,
    OVERFLOW,
    RATE,
    SKIPPED_CALLS,
    DeliveryProgress,
    StepMetadata,
    WatchState,
)
from nissa.gradients.step_processor import StepProcessor, clip_factor
from nissa.hub.measurements import GradientsMeasured, Measurement, StepMeasured, StepSkipped
from nissa.kernels.moments import Layout, Thresholds

Arrays = list[NDArray[np.generic]]
MEASURES = Measures(layout=Layout(), thresholds=Thresholds())


@dataclass
class Packed:
    parts: list[torch.Tensor]
    sampled: Sampled


def parameter(values: list[float]) -> torch.Tensor:
    made = torch.zeros(len(values), requires_grad=True)
    made.grad = torch.tensor(values)
    return made


def packed(*, slots: dict[str, str] | None = None, **gradients: list[float]) -> Packed:
    """Statistics of gradients; ``slots`` says which of them belong to the seed in a slot."""
    named = {name.replace("_", "."): parameter(values) for name, values in gradients.items()}
    capture = Capture(MEASURES, list(named.items()))
    capture.read()
    seeds = [(slot, frozenset({id(named[name])})) for name, slot in (slots or {}).items()]
    return Packed(*capture.finish(seeds))


def metadata(rows: Packed | None = None, **fields: Any) -> StepMetadata:
    loss = fields.pop("loss", None)
    defaults: dict[str, Any] = {
        "env_id": None,
        "model_name": None,
        "step": 0,
        "primary": True,
        "time_unix_nano": 1,
        "duration": None,
        "epoch_ids": None,
        "sampled": rows.sampled if rows else None,
        "packing": Packing(number_names=((),) * len(rows.parts), parts=len(rows.parts)) if rows else Packing(),
        "known": {} if loss is None else {LOSS: loss},
        "delivered": DeliveryProgress(),
    }
    return StepMetadata(**(defaults | fields))


def arrays(*tensors: torch.Tensor) -> Arrays:
    return [tensor.numpy() for tensor in tensors]


class Out(list[Measurement]):
    """What a delivery recorded."""

    def __init__(self, most: int = 200, top: int | None = None) -> None:
        super().__init__()
        self.deliver = StepProcessor(self.append, most=most, top=top)


def epoch(number: int) -> SpanIds:
    return SpanIds(trace_id=1, span_id=number)


def test_a_sampled_step_is_told_before_its_gradients() -> None:
    out, rows = Out(), packed(a=[3.0], b=[4.0])
    of_step: dict[str, Any] = {
        "step": 7,
        "time_unix_nano": 5,
        "duration": 0.5,
        "epoch_ids": epoch(3),
    }
    out.deliver(metadata(rows, **of_step, loss=0.25), arrays(*rows.parts))
    step, sample = out
    assert step == StepMeasured(env_id=None, **of_step, loss=0.25, sampled=True, missed=7)
    assert isinstance(sample, GradientsMeasured)
    assert (sample.step, sample.time_unix_nano, sample.names) == (7, 5, ("a", "b"))
    assert sample.health.global_norm == 5.0
    assert sample.lag >= 0


def test_a_time_that_lies_ahead_is_no_negative_lag() -> None:
    out, rows = Out(), packed(a=[3.0])
    out.deliver(metadata(rows, time_unix_nano=2**62), arrays(*rows.parts))
    assert isinstance(out[1], GradientsMeasured)
    assert out[1].lag == 0.0


def test_steps_of_an_optimizer_that_is_not_the_first_are_marked_and_their_losses_are_not_the_epochs() -> None:
    out, rows = Out(), packed(a=[3.0])
    out.deliver(metadata(rows, primary=False, model_name="b", epoch_ids=epoch(1), loss=2.0), arrays(*rows.parts))
    step, _ = out
    assert isinstance(step, StepMeasured)
    assert (step.primary, step.model_name, step.loss) == (False, "b", 2.0)
    assert out.deliver.latest(None).epochs == {}


def test_streams_over_the_bound_are_folded_and_health_counts_parameters() -> None:
    out = Out(most=2)
    rows = packed(a_w=[3.0], a_b=[0.0], a_c=[float("nan")], z=[4.0])
    out.deliver(metadata(rows), arrays(*rows.parts))
    sample = out[1]
    assert isinstance(sample, GradientsMeasured)
    assert sample.names == ("a.*", "z")
    assert sample.moments.count.tolist() == [3, 1]
    assert sample.moments.norm.tolist() == [3.0, 4.0]
    assert (sample.health.layers, sample.health.nonfinite, sample.health.vanishing) == (4, ("a.c",), ("a.b",))


def test_the_train_loss_is_the_mean_of_the_epochs_steps() -> None:
    out = Out()
    for loss in (1.0, None, 0.0, 2.0):
        out.deliver(metadata(epoch_ids=epoch(1), loss=loss), [])
    assert out.deliver.latest(None).epochs[1].mean == 1.0


def test_an_epoch_without_losses_has_no_mean() -> None:
    out = Out()
    out.deliver(metadata(epoch_ids=epoch(1)), [])
    assert out.deliver.latest(None).epochs == {}
    assert Losses().mean is None


def test_a_loss_that_is_not_finite_stays_in_the_mean() -> None:
    out = Out()
    for loss in (1.0, float("nan"), 2.0):
        out.deliver(metadata(epoch_ids=epoch(1), loss=loss), [])
    assert np.isnan(out.deliver.latest(None).epochs[1].mean or 0.0)


def test_losses_of_the_newest_two_epochs_are_kept() -> None:
    out = Out()
    for number in range(1, 100):
        out.deliver(metadata(epoch_ids=epoch(number), loss=float(number)), [])
    assert {number: each.mean for number, each in out.deliver.latest(None).epochs.items()} == {98: 98.0, 99: 99.0}


def test_environments_and_models_are_kept_apart() -> None:
    out, fine, bad = Out(), packed(a=[1.0]), packed(a=[float("nan")])
    out.deliver(metadata(fine, env_id="0", model_name="x", loss=1.0), arrays(*fine.parts))
    out.deliver(metadata(bad, env_id="0", model_name="y"), arrays(*bad.parts))
    out.deliver(metadata(fine, env_id="1", loss=3.0), arrays(*fine.parts))
    assert set(out.deliver.latest("0").by_model) == {"x", "y"}
    health = [out.deliver.latest(env).health() for env in ("0", "1", "2")]
    assert [each and each.score for each in health] == [0.0, 1.0, None]
    losses = [out.deliver.latest(env).losses(None) for env in ("0", "1", "2")]
    assert [each and each.mean for each in losses] == [1.0, 3.0, None]


def test_the_newest_gradients_of_a_model_replace_its_older_ones() -> None:
    out, fine, bad = Out(), packed(a=[1.0]), packed(a=[float("nan")])
    for each in (bad, fine):
        out.deliver(metadata(each), arrays(*each.parts))
    health = out.deliver.latest(None).health()
    assert health is not None
    assert health.score == 1.0


def test_numbers_that_travelled_are_told_like_those_that_were_known() -> None:
    out = Out()
    tensors, packing = pack([], {LOSS: torch.tensor(0.5), CLIP_NORM: torch.tensor([4.0])})
    out.deliver(metadata(packing=packing, clip_limit=1.0), arrays(*tensors))
    (step,) = out
    assert isinstance(step, StepMeasured)
    assert (step.loss, step.clip_norm) == (0.5, 4.0)
    assert step.clip_factor == pytest.approx(0.25)


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 3.0, 1e30, float("inf")])
def test_the_clip_factor_is_torchs(norm: float) -> None:
    made = torch.zeros(1, requires_grad=True, dtype=torch.float64)
    made.grad = torch.ones(1, dtype=torch.float64)
    torch.nn.utils.clip_grads_with_norm_([made], 1.0, torch.tensor(norm, dtype=torch.float64))
    assert clip_factor(norm, 1.0) == pytest.approx(float(made.grad))


def test_without_a_norm_there_is_no_factor_and_of_nan_there_is_none_but_nan() -> None:
    out = Out()
    out.deliver(metadata(clip_limit=1.0), [])
    (step,) = out
    assert isinstance(step, StepMeasured)
    assert step.clip_factor is None
    assert np.isnan(clip_factor(float("nan"), 1.0))


def test_a_step_that_the_optimizer_left_out_is_skipped_and_later_ones_move_up() -> None:
    out, rows = Out(), packed(a=[float("inf")])
    counted = {f"{SKIPPED_CALLS}cpu": torch.tensor(1.0)}
    tensors, packing = pack(rows.parts, {OVERFLOW: torch.tensor(1.0), LOSS: torch.tensor(9.0), **counted})
    delivered = DeliveryProgress()
    out.deliver(metadata(step=0, delivered=delivered), [])
    skipped = metadata(step=1, sampled=rows.sampled, packing=packing, epoch_ids=epoch(1), delivered=delivered)
    out.deliver(skipped, arrays(*tensors))
    out.deliver(metadata(step=2, known={f"{SKIPPED_CALLS}cpu": 1.0}, delivered=delivered), [])
    assert [type(each) for each in out] == [StepMeasured, StepSkipped, StepMeasured]
    assert [each.step for each in out if isinstance(each, StepMeasured)] == [0, 1]
    assert out.deliver.latest(None).epochs == {}
    assert out.deliver.latest(None).by_model == {}


def test_a_step_that_was_not_even_called_is_skipped_and_has_no_number() -> None:
    out = Out()
    delivered = DeliveryProgress()
    out.deliver(metadata(step=0, delivered=delivered), [])
    out.deliver(metadata(step=1, skipped=True, unbegun=1, delivered=delivered), [])
    out.deliver(metadata(step=1, unbegun=1, delivered=delivered), [])
    assert [each.step for each in out if isinstance(each, StepMeasured)] == [0, 1]


def test_a_seed_is_compared_with_its_host() -> None:
    out = Out()
    rows = packed(slots={"a.seed": "r0c0"}, a_seed=[3.0, 4.0], a_host=[5.0, 5.0, 5.0], b_host=[5.0, float("nan")])
    out.deliver(metadata(rows), arrays(*rows.parts))
    sample = out[1]
    assert isinstance(sample, GradientsMeasured)
    assert sample.seed_ratios == {"r0c0": pytest.approx((25 / 2) ** 0.5 / 5.0)}


def test_a_seed_with_an_optimizer_of_its_own_is_compared_with_the_host_of_the_same_epoch() -> None:
    out, host, seed = Out(), packed(h=[2.0]), packed(slots={"s": "r0c0"}, s=[1.0])
    for number in (1, 2):
        if number == 1:
            out.deliver(metadata(host, epoch_ids=epoch(number)), arrays(*host.parts))
        rows = arrays(*seed.parts)
        out.deliver(metadata(seed, model_name="seed", primary=False, epoch_ids=epoch(number)), rows)
    found = [each.seed_ratios for each in out if isinstance(each, GradientsMeasured)]
    assert found == [{}, {"r0c0": 0.5}, {}]


@pytest.mark.parametrize("host", [[0.0], [float("nan")]])
def test_beside_a_host_without_gradients_there_is_no_ratio(host: list[float]) -> None:
    out, rows = Out(), packed(slots={"s": "r0c0"}, s=[1.0], h=host)
    out.deliver(metadata(rows), arrays(*rows.parts))
    assert isinstance(out[1], GradientsMeasured)
    assert out[1].seed_ratios == {}


@pytest.mark.parametrize(("exported", "told"), [((True, False), ("a",)), ((False, False), None)])
def test_rows_that_another_rank_exports_are_measured_and_not_told(
    exported: tuple[bool, ...], told: tuple[str, ...] | None
) -> None:
    out, rows = Out(), packed(a=[3.0], b=[4.0])
    sampled = Sampled(("a", "b"), ("a", "b"), Layout(), 0, exported, (None, None))
    out.deliver(metadata(rows, sampled=sampled), arrays(*rows.parts))
    samples = [each for each in out if isinstance(each, GradientsMeasured)]
    assert [each.names for each in samples] == ([] if told is None else [told])
    assert out.deliver.latest(None).by_model[None].names == ("a", "b")
    assert [each.health.global_norm for each in samples] == ([] if told is None else [5.0])


def test_of_the_largest_alone_the_rest_is_measured_and_not_shown() -> None:
    out, rows = Out(top=1), packed(a=[3.0], b=[4.0])
    out.deliver(metadata(rows), arrays(*rows.parts))
    sample = out[1]
    assert isinstance(sample, GradientsMeasured)
    assert sample.shown is not None
    assert [sample.names[row] for row in sample.shown] == ["b"]
    assert sample.health.global_norm == 5.0
    assert sample.names == ("a", "b")


@given(st.lists(st.floats(-1e6, 1e6), max_size=20))
def test_noise_is_the_standard_deviation_of_the_losses(values: list[float]) -> None:
    losses = Losses()
    for value in values:
        losses.add(value)
    if len(values) < 2:
        assert losses.noise is None
    else:
        assert losses.noise == pytest.approx(float(np.std(values)), rel=1e-6, abs=1e-6)
        assert losses.mean == pytest.approx(float(np.mean(values)), rel=1e-6, abs=1e-6)


def test_noise_around_a_loss_that_is_large_is_not_lost() -> None:
    losses = Losses()
    for value in (1e9, 1e9 + 1, 1e9 + 2):
        losses.add(value)
    assert losses.noise == pytest.approx(float(np.std([0.0, 1.0, 2.0])))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_noise_with_a_loss_that_is_not_finite_is_none_of_a_number(value: float) -> None:
    losses = Losses()
    for each in (1.0, value, 2.0):
        losses.add(each)
    assert np.isnan(losses.noise or 0.0)
    assert losses.mean == pytest.approx(value, nan_ok=True)


def test_the_newest_step_and_its_rate_are_those_of_the_first_watch() -> None:
    out = Out()
    for step, primary in ((3, True), (9, False)):
        out.deliver(metadata(step=step, primary=primary, model_name=str(primary), known={f"{RATE}0": step / 10}), [])
    latest = out.deliver.latest(None)
    assert (latest.step, latest.learning_rate) == (3, 0.3)


def test_a_growing_seed_has_a_health_of_its_own() -> None:
    out, rows = Out(), packed(slots={"b": "r0c0", "c": "r0c0"}, a=[np.nan], b=[3.0, 0.0], c=[4.0])
    out.deliver(metadata(rows), arrays(*rows.parts))
    seed = out.deliver.latest(None).seed("r0c0")
    assert seed is not None
    assert (seed.layers, seed.global_norm, seed.nonfinite) == (2, 5.0, ())
    assert out.deliver.latest(None).seed("r9c9") is None
    assert out.deliver.latest(None).seed(None) is None


def test_what_is_no_longer_watched_has_no_seeds() -> None:
    out, rows = Out(), packed(slots={"b": "r0c0"}, a=[1.0], b=[3.0])
    out.deliver(metadata(rows), arrays(*rows.parts))
    assert out.deliver.latest(None).ratios() == {"r0c0": 3.0}
    out.deliver.forget(None, None)
    assert (out.deliver.latest(None).ratios(), out.deliver.latest(None).seed("r0c0")) == ({}, None)


def test_rows_of_a_watch_that_was_closed_do_not_bring_its_statistics_back() -> None:
    out, rows = Out(), packed(a=[1.0])
    out.deliver.forget(None, None)
    out.deliver(metadata(rows, state=WatchState(closed=True)), arrays(*rows.parts))
    assert isinstance(out[1], GradientsMeasured)
    latest = out.deliver.latest(None)
    assert (latest.by_model, latest.sums_of_squares, latest.seeds) == ({}, {}, {})
