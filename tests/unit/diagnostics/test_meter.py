import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
)

import nissa
from nissa import ConfigurationError, ValidationMeter
from nissa.diagnostics.confusion_metric import ConfusionMetric
from nissa.diagnostics.meter import MAX_JOINT, Measured


class Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    """Counts what makes the host wait for a device."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "equal", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.waits: list[str] = []
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        self.operations += 1
        name = func.overloadpacket.__name__
        if any(name.lstrip("_").startswith(each.lstrip("_")) for each in self.WAITING):
            self.waits.append(name)
        if (name == "index" and any(each.dtype in (torch.bool, torch.uint8) for each in args[1])) or name == "copy_":
            self.waits.append(name)
        found = func(*args, **(kwargs or {}))
        if name == "_to_copy" and found.device != args[0].device:
            self.waits.append(name)
        return found


def batches(shape: tuple[int, ...] = (), classes: int = 5, *, numbers: tuple[int, ...] = (7, 32, 1)) -> Any:
    generator = torch.Generator().manual_seed(3)
    for number in numbers:
        logits = torch.randn(number, classes, *shape, generator=generator)
        # The last class has no examples, the first has most.
        targets = (torch.rand(number, *shape, generator=generator) ** 3 * (classes - 1)).to(torch.int64)
        yield logits, targets


def filled(meter: ValidationMeter, given: Any, **how: Any) -> Measured:
    for logits, targets in given:
        meter.update(logits, targets, **how)
    return meter.result()


@pytest.mark.parametrize("shape", [(), (4,), (3, 4)], ids=["flat", "sequence", "image"])
def test_it_finds_what_torchmetrics_finds(shape: tuple[int, ...]) -> None:
    given = list(batches(shape))
    measured = filled(ValidationMeter(5), given)
    predicted = torch.cat([logits.argmax(1).flatten() for logits, _ in given])
    targets = torch.cat([targets.flatten() for _, targets in given])
    confusion = multiclass_confusion_matrix(predicted, targets, 5)
    assert measured.confusion == tuple(map(tuple, confusion.tolist()))
    assert measured.accuracy == pytest.approx(multiclass_accuracy(predicted, targets, 5, average="micro").item())
    each = multiclass_accuracy(predicted, targets, 5, average="none").tolist()
    assert measured.per_class_accuracy == pytest.approx(dict(zip("0123", each[:4], strict=True)))
    assert list(measured.per_class_support.values()) == targets.bincount(minlength=5).tolist()
    assert measured.examples == len(targets)


def test_a_class_without_examples_is_absent_though_it_was_predicted() -> None:
    meter = ValidationMeter(["cat", "dog", "owl"])
    meter.update(torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1]))
    measured = meter.result()
    assert measured.per_class_accuracy == {"cat": 0.5, "dog": 0.0}
    assert measured.per_class_support == {"cat": 2, "dog": 1, "owl": 0}
    assert measured.confusion == ((1, 1, 0), (0, 0, 1), (0, 0, 0))
    assert measured.class_names == ("cat", "dog", "owl")


def test_accuracy_counts_examples_and_not_classes() -> None:
    meter = ValidationMeter(2)
    meter.update(torch.tensor([0] * 100), torch.tensor([0] * 99 + [1]))
    assert meter.result().accuracy == 0.99


def test_a_mean_loss_weighs_as_much_as_its_batch() -> None:
    meter = ValidationMeter(5)
    losses = []
    for logits, targets in batches():
        losses.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
        meter.update(logits, targets, losses[-1].mean())
    measured = meter.result()
    assert measured.loss == pytest.approx(torch.cat(losses).mean().item())
    assert measured.per_class_loss == {}


def test_losses_of_elements_are_kept_for_each_class() -> None:
    meter = ValidationMeter(5)
    given = list(batches((3,)))
    every = [torch.nn.functional.cross_entropy(logits, targets, reduction="none") for logits, targets in given]
    for (logits, targets), loss in zip(given, every, strict=True):
        meter.update(logits, targets, loss)
    measured = meter.result()
    losses = torch.cat([loss.flatten() for loss in every])
    targets = torch.cat([targets.flatten() for _, targets in given])
    assert measured.loss == pytest.approx(losses.mean().item())
    expected = {str(each): losses[targets == each].mean().item() for each in range(4)}
    assert measured.per_class_loss == pytest.approx(expected)


def test_a_loss_may_be_a_plain_number_and_may_come_now_and_then() -> None:
    meter = ValidationMeter(2)
    meter.update(torch.tensor([0]), torch.tensor([0]), 4.0)
    meter.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 1]), 2)
    meter.update(torch.tensor([0] * 50), torch.tensor([0] * 50))
    measured = meter.result()
    assert measured.loss == 2.5
    assert measured.examples == 54


def test_a_loss_that_is_no_number_is_found() -> None:
    meter = ValidationMeter(2)
    meter.update(torch.tensor([0]), torch.tensor([0]), torch.tensor(torch.nan))
    loss = meter.result().loss
    assert loss is not None
    assert math.isnan(loss)


def test_what_is_ignored_counts_nowhere() -> None:
    meter = ValidationMeter(3, ignore_index=-100)
    meter.update(torch.tensor([0, 1, 2]), torch.tensor([0, -100, 1]), torch.tensor([1.0, torch.nan, 3.0]))
    meter.update(torch.tensor([0]), torch.tensor([-100]), torch.tensor(torch.nan))
    measured = meter.result()
    assert (measured.examples, measured.ignored, measured.out_of_range) == (2, 2, 0)
    assert (measured.loss, measured.accuracy) == (2.0, 0.5)
    assert measured.per_class_loss == {"0": 1.0, "1": 3.0}


def test_a_class_may_be_the_ignored_one() -> None:
    meter = ValidationMeter(3, ignore_index=0)
    meter.update(torch.tensor([0, 0]), torch.tensor([0, 1]))
    measured = meter.result()
    assert (measured.accuracy, measured.ignored) == (0.0, 1)
    assert measured.per_class_support == {"0": 0, "1": 1, "2": 0}


def test_labels_that_are_no_class_are_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    meter = ValidationMeter(3)
    meter.update(torch.tensor([0, 1, 2, 7]), torch.tensor([0, 3, -1, 1]), torch.tensor([1.0, 8.0, 8.0, 8.0]))
    measured = meter.result()
    assert (measured.examples, measured.out_of_range, measured.ignored) == (1, 3, 0)
    assert (measured.accuracy, measured.loss) == (1.0, 1.0)
    assert "3 elements of a validation were skipped" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int32], ids=["float", "bool", "int"])
def test_two_classes_may_have_one_logit(dtype: torch.dtype) -> None:
    meter = ValidationMeter(["no", "yes"])
    meter.update(torch.tensor([-1.0, 2.0, 3.0, -0.1]), torch.tensor([0, 1, 0, 1]).to(dtype))
    measured = meter.result()
    assert measured.confusion == ((1, 1), (1, 1))
    assert measured.out_of_range == 0


def test_a_label_between_two_classes_is_none() -> None:
    meter = ValidationMeter(2)
    meter.update(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.7, torch.nan, 1.0]))
    assert (meter.result().out_of_range, meter.result().examples) == (2, 1)


def test_above_a_thousand_classes_there_is_no_confusion() -> None:
    number = MAX_JOINT + 1
    meter = ValidationMeter(number)
    meter.update(torch.tensor([0, 1, number - 1]), torch.tensor([0, 2, number - 1]))
    measured = meter.result()
    assert measured.confusion is None
    assert measured.per_class_accuracy == {"0": 1.0, "2": 0.0, str(number - 1): 1.0}
    assert measured.accuracy == pytest.approx(2 / 3)


def test_logits_of_half_precision_are_counted_and_no_graph_is_kept() -> None:
    logits = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.bfloat16, requires_grad=True)
    meter = ValidationMeter(2)
    meter.update(logits, torch.tensor([1, 1]), logits.sum())
    assert meter._metric is not None
    assert meter._metric.losses.grad_fn is None
    assert meter.result().loss == 6.0
    assert logits.grad is None


def test_many_losses_of_half_precision_add_up() -> None:
    meter = ValidationMeter(2)
    for _ in range(300):
        meter.update(torch.tensor([0]), torch.tensor([0]), torch.tensor([1.0], dtype=torch.bfloat16))
    assert meter.result().loss == 1.0


def test_reset_forgets_and_nothing_is_absent() -> None:
    meter = ValidationMeter(2)
    meter.update(torch.tensor([0]), torch.tensor([0]), 1.0)
    meter.reset()
    measured = meter.result()
    assert (measured.loss, measured.accuracy, measured.examples) == (None, None, 0)
    assert measured.per_class_accuracy == {}
    meter.update(torch.tensor([0]), torch.tensor([1]), 3.0)
    assert (meter.result().loss, meter.result().accuracy) == (3.0, 0.0)
    assert ValidationMeter(2).result() == Measured(class_names=("0", "1"))


def test_it_may_be_used_in_and_out_of_inference_mode() -> None:
    meter = ValidationMeter(2)
    for mode in (True, False, True):
        with torch.inference_mode(mode):
            meter.update(torch.tensor([0]), torch.tensor([0]), 1.0)
    assert meter.result().examples == 3
    with torch.inference_mode():
        meter.reset()
    meter.update(torch.tensor([0]), torch.tensor([0]), 1.0)
    assert meter.result().examples == 1


def test_adding_a_batch_never_waits_and_the_result_copies_once(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = ValidationMeter(5, ignore_index=-100)
    filled(meter, batches((2,)))  # the sums are made with the first batch
    with Copies() as seen:
        for logits, targets in batches((2,)):
            meter.update(logits, targets, torch.nn.functional.cross_entropy(logits, targets))
            meter.update(logits, targets, torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
            meter.update(logits.argmax(1), targets, 1.0)
    assert seen.operations > 30
    assert seen.waits == []
    reads = []
    kept = torch.Tensor.cpu

    def read(tensor: torch.Tensor) -> torch.Tensor:
        reads.append(tensor.shape)
        return kept(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", read)
    with Copies() as seen:
        assert meter.result().examples == 320
    assert len(reads) == 1
    assert seen.waits == []


def test_the_count_of_copies_sees_them() -> None:
    with Copies() as seen:
        torch.ones(1).item()
        torch.ones(3)[torch.tensor([True, False, True])]
        torch.ones(3).copy_(torch.zeros(3))
        torch.bincount(torch.tensor([1]))
    assert seen.waits == ["_local_scalar_dense", "index", "copy_", "bincount"]


def test_random_numbers_and_deterministic_mode_are_left_alone() -> None:
    before = torch.get_rng_state()
    torch.use_deterministic_algorithms(mode=True)
    try:
        assert filled(ValidationMeter(5), batches()).examples == 40
    finally:
        torch.use_deterministic_algorithms(mode=False)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    ("logits", "targets", "loss"),
    [
        (torch.zeros(4, 3), torch.zeros(4), None),
        (torch.zeros(4, 5), torch.zeros(4, 5), None),
        (torch.zeros(4, 5), torch.zeros(3), None),
        (torch.zeros(4, 6, 5), torch.zeros(4, 6), None),
        (torch.zeros(5), torch.tensor(1), None),
        (torch.zeros(4), torch.zeros(4), None),
        (torch.zeros(4, 5), torch.zeros(4, dtype=torch.long), torch.zeros(3)),
        (torch.zeros(4, 5, device="meta"), torch.zeros(4, dtype=torch.long), None),
    ],
    ids=["classes", "one hot", "length", "classes last", "unbatched", "one logit", "loss", "devices"],
)
def test_what_does_not_fit_together_is_refused(logits: Any, targets: Any, loss: Any) -> None:
    meter = ValidationMeter(5)
    with pytest.raises(ConfigurationError, match=r"shape|are on"):
        meter.update(logits, targets, loss)


@pytest.mark.parametrize(
    "classes", [1, 0, -3, ["a"], ["a", "a"], "abc"], ids=["one", "none", "negative", "one name", "twice", "text"]
)
def test_classes_that_cannot_be_told_apart_are_refused(classes: Any) -> None:
    with pytest.raises(ConfigurationError):
        ValidationMeter(classes)


def test_without_torchmetrics_it_says_what_to_install() -> None:
    code = """
import sys
sys.modules["torchmetrics"] = None
import nissa
try:
    nissa.ValidationMeter(2)
except nissa.ConfigurationError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'ValidationMeter needs torchmetrics: pip install "nissa[metrics]".'


def test_naming_the_meter_does_not_load_torchmetrics() -> None:
    code = "import sys, nissa; assert 'torch' not in sys.modules; nissa.ValidationMeter; print('torchmetrics' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_it_is_a_public_name_and_its_sums_are_a_metric() -> None:
    assert nissa.ValidationMeter is ValidationMeter
    metric = ConfusionMetric(2, joint=True, device=torch.device("cpu"))
    metric.update(torch.tensor([1]), torch.tensor([1]), None, None)
    assert metric.compute()[:6].tolist() == [0, 0, 0, 1, 0, 0]
