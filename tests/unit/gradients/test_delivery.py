from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nissa.events import SpanIds
from nissa.gradients.capture import StepNote, _loss_bits, _with_loss
from nissa.gradients.collector import Packed, pack
from nissa.gradients.delivery import Losses, StepDelivery, split_loss
from nissa.hub.measurements import GradientsMeasured, Measurement, StepMeasured
from nissa.kernels.moments import Layout, Thresholds

Arrays = list[NDArray[np.generic]]


def packed(**gradients: list[float]) -> Packed:
    named = [(name.replace("_", "."), torch.tensor(values)) for name, values in gradients.items()]
    return pack(named, Layout(), Thresholds())


def note(**fields: Any) -> StepNote:
    defaults: dict[str, Any] = {
        "env_id": None,
        "model_name": None,
        "step": 0,
        "primary": True,
        "time_unix_nano": 1,
        "duration": None,
        "learning_rate": None,
        "epoch_ids": None,
        "packed": None,
        "loss": None,
        "loss_follows": False,
    }
    return StepNote(**(defaults | fields))


def arrays(*tensors: torch.Tensor) -> Arrays:
    return [tensor.numpy() for tensor in tensors]


def bits(value: float) -> torch.Tensor:
    return _loss_bits(torch.tensor(value))


class Out(list[Measurement]):
    """What a delivery recorded."""

    def __init__(self, most: int = 200) -> None:
        super().__init__()
        self.deliver = StepDelivery(self.append, most=most)


def epoch(number: int) -> SpanIds:
    return SpanIds(trace_id=1, span_id=number)


def test_a_loss_of_its_own_leaves_the_parts_alone() -> None:
    rows = packed(a=[1.0, 2.0], b=[3.0])
    parts, loss = split_loss(note(packed=rows, loss_follows=True), arrays(*rows.parts, bits(0.1)))
    assert loss == pytest.approx(0.1)
    assert [part.tolist() for part in parts] == [part.tolist() for part in rows.parts]


def test_a_loss_that_rides_in_the_last_part_is_cut_off_it() -> None:
    rows = packed(a=[1.0, 2.0], b=[3.0])
    riding = torch.cat([rows.parts[0].reshape(-1), bits(0.1)])
    parts, loss = split_loss(note(packed=rows, loss_follows=True), arrays(riding))
    assert loss == pytest.approx(0.1)
    assert rows.unpack(parts).count.tolist() == [2, 1]


@pytest.mark.parametrize("riding", [False, True])
def test_a_loss_follows_several_parts(*, riding: bool) -> None:
    rows, more = packed(a=[1.0, 2.0]), packed(b=[3.0])
    last = [torch.cat([more.parts[0].reshape(-1), bits(0.1)])] if riding else [more.parts[0], bits(0.1)]
    parts, loss = split_loss(note(packed=rows, loss_follows=True), arrays(rows.parts[0], *last))
    assert loss == pytest.approx(0.1)
    assert rows.unpack(parts).count.tolist() == [2, 1]


def test_a_loss_alone_is_all_there_is() -> None:
    assert split_loss(note(loss_follows=True), arrays(bits(0.5))) == ([], 0.5)


def test_a_loss_that_was_a_number_already_is_in_the_note() -> None:
    rows = packed(a=[1.0])
    parts, loss = split_loss(note(packed=rows, loss=0.0), arrays(*rows.parts))
    assert (len(parts), loss) == (1, 0.0)
    assert split_loss(note(), []) == ([], None)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-300, 1 / 3, float("inf"), float("nan")])
def test_a_loss_crosses_bit_for_bit(value: float) -> None:
    _, loss = split_loss(note(loss_follows=True), arrays(_loss_bits(torch.tensor(value, dtype=torch.float64))))
    assert repr(loss) == repr(value)


def test_on_the_host_where_nothing_is_copied_a_loss_does_not_ride() -> None:
    rows = packed(a=[1.0])
    tensors = _with_loss(list(rows.parts), bits(0.5))
    assert tensors[0] is rows.parts[0]
    assert len(tensors) == 2


def test_on_a_device_a_loss_rides_in_the_copy_of_that_device() -> None:
    part = torch.empty((2, 5), dtype=torch.int64, device="meta")
    (riding,) = _with_loss([part], torch.empty(1, dtype=torch.int64, device="meta"))
    assert riding.shape == (11,)


def test_a_sampled_step_is_told_before_its_gradients() -> None:
    out, rows = Out(), packed(a=[3.0], b=[4.0])
    of_step: dict[str, Any] = {
        "step": 7,
        "time_unix_nano": 5,
        "duration": 0.5,
        "learning_rate": 0.0,
        "epoch_ids": epoch(3),
    }
    out.deliver(note(**of_step, packed=rows, loss=0.25), arrays(*rows.parts))
    step, sample = out
    assert step == StepMeasured(env_id=None, **of_step, loss=0.25, sampled=True)
    assert isinstance(sample, GradientsMeasured)
    assert (sample.step, sample.time_unix_nano, sample.names) == (7, 5, ("a", "b"))
    assert sample.health.global_norm == 5.0
    assert sample.lag >= 0


def test_a_time_that_lies_ahead_is_no_negative_lag() -> None:
    out, rows = Out(), packed(a=[3.0])
    out.deliver(note(packed=rows, time_unix_nano=2**62), arrays(*rows.parts))
    assert isinstance(out[1], GradientsMeasured)
    assert out[1].lag == 0.0


def test_steps_of_an_optimizer_that_is_not_the_first_are_not_the_steps() -> None:
    out, rows = Out(), packed(a=[3.0])
    out.deliver(note(primary=False, packed=rows), arrays(*rows.parts))
    assert [type(each) for each in out] == [GradientsMeasured]


def test_streams_over_the_bound_are_folded_and_health_counts_parameters() -> None:
    out = Out(most=2)
    rows = packed(a_w=[3.0], a_b=[0.0], a_c=[float("nan")], z=[4.0])
    out.deliver(note(packed=rows), arrays(*rows.parts))
    sample = out[1]
    assert isinstance(sample, GradientsMeasured)
    assert sample.names == ("a.*", "z")
    assert sample.moments.count.tolist() == [3, 1]
    assert sample.moments.norm.tolist() == [3.0, 4.0]
    assert (sample.health.layers, sample.health.nonfinite, sample.health.vanishing) == (4, ("a.c",), ("a.b",))


def test_the_train_loss_is_the_mean_of_the_epochs_steps() -> None:
    out = Out()
    for loss in (1.0, None, 0.0, 2.0):
        out.deliver(note(epoch_ids=epoch(1), loss=loss), [])
    assert out.deliver.latest(None).epochs[1].mean == 1.0


def test_an_epoch_without_losses_has_no_mean() -> None:
    out = Out()
    out.deliver(note(epoch_ids=epoch(1)), [])
    assert out.deliver.latest(None).epochs == {}
    assert Losses().mean is None


def test_a_loss_that_is_not_finite_stays_in_the_mean() -> None:
    out = Out()
    for loss in (1.0, float("nan"), 2.0):
        out.deliver(note(epoch_ids=epoch(1), loss=loss), [])
    assert np.isnan(out.deliver.latest(None).epochs[1].mean or 0.0)


def test_losses_of_the_newest_two_epochs_are_kept() -> None:
    out = Out()
    for number in range(1, 100):
        out.deliver(note(epoch_ids=epoch(number), loss=float(number)), [])
    assert {number: each.mean for number, each in out.deliver.latest(None).epochs.items()} == {98: 98.0, 99: 99.0}


def test_environments_and_models_are_kept_apart() -> None:
    out, fine, bad = Out(), packed(a=[1.0]), packed(a=[float("nan")])
    out.deliver(note(env_id="0", model_name="x", packed=fine, loss=1.0), arrays(*fine.parts))
    out.deliver(note(env_id="0", model_name="y", packed=bad), arrays(*bad.parts))
    out.deliver(note(env_id="1", packed=fine, loss=3.0), arrays(*fine.parts))
    assert set(out.deliver.latest("0").by_model) == {"x", "y"}
    health = [out.deliver.latest(env).health() for env in ("0", "1", "2")]
    assert [each and each.score for each in health] == [0.0, 1.0, None]
    assert [out.deliver.latest(env).epochs[0].mean for env in ("0", "1")] == [1.0, 3.0]


def test_the_newest_gradients_of_a_model_replace_its_older_ones() -> None:
    out, fine, bad = Out(), packed(a=[1.0]), packed(a=[float("nan")])
    for each in (bad, fine):
        out.deliver(note(packed=each), arrays(*each.parts))
    health = out.deliver.latest(None).health()
    assert health is not None
    assert health.score == 1.0
