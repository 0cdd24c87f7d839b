"""What the kernel finds on a device is what it finds on a CPU."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.profiler import ProfilerActivity, profile

from nissa.kernels import kernel_for, triton
from nissa.kernels.digest import digests
from nissa.kernels.digest_reference import digests_by_torch
from nissa.kernels.fallback import FallbackKernel
from nissa.kernels.moments import BucketRange, Column, Layout, Thresholds
from nissa.kernels.reference import measure

ROUNDED = [Column.TOTAL, Column.ABS_TOTAL, Column.SUM_OF_SQUARES]
EXTREMES = [Column.MINIMUM, Column.MAXIMUM, Column.ABS_MAX]


def floats(packed: NDArray[np.int64], columns: list[Column]) -> NDArray[np.float64]:
    return np.ascontiguousarray(packed[:, columns]).view(np.float64)


def spread(*shape: int) -> torch.Tensor:
    """Numbers over many octaves, some of them zero or not finite."""
    generator = torch.Generator().manual_seed(sum(shape))
    values = torch.randn(shape, generator=generator) * torch.exp2(torch.randn(shape, generator=generator) * 12)
    odd = torch.rand(shape, generator=generator)
    return values.masked_fill(odd < 0.06, 0.0).masked_fill(odd < 0.04, float("nan")).masked_fill(odd < 0.02, -torch.inf)


TENSORS: dict[str, Callable[[], list[torch.Tensor]]] = {
    "small": lambda: [spread(3), spread(256), spread(0), spread(7, 5)],
    "large": lambda: [spread(3_000_001)],
    "half": lambda: [spread(1000).half(), spread(1000).bfloat16()],
    "double": lambda: [spread(1000).double()],
    "complex": lambda: [torch.view_as_complex(spread(100, 2))],
    "transposed": lambda: [spread(300, 200).T],
    "channels_last": lambda: [spread(8, 16, 30, 30).to(memory_format=torch.channels_last)],
    "unaligned": lambda: [spread(100_000)[1:], spread(70_000).half()[3:-1], spread(1000).double()[1:]],
    "many": lambda: [spread(i + 1) for i in range(500)],
    "sparse": lambda: [spread(30, 20).nan_to_num(0.0, 0.0, 0.0).to_sparse()],
}


LAYOUTS = {
    "buckets": Layout(),
    "moments": Layout(None),
    "subnormals": Layout(BucketRange(3, -160, 16)),
    "coarse": Layout(BucketRange(-2, -8, 8)),
    "fine": Layout(BucketRange(8)),
}


@pytest.fixture(autouse=True)
def _compiles() -> Iterator[None]:
    """Fail where the compiled kernel has given way to the reference."""
    kernel = kernel_for("cuda")
    yield
    assert isinstance(kernel, FallbackKernel)
    assert kernel._kernel is triton.measure


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("what", TENSORS)
def test_numbers_are_those_of_a_cpu(what: str, layout: Layout) -> None:
    tensors = TENSORS[what]()
    expected = measure(tensors, layout, Thresholds()).numpy()
    packed = kernel_for("cuda")([each.cuda() for each in tensors], layout, Thresholds())
    assert packed.device.type == "cuda"
    found = packed.cpu().numpy()
    counts = [column for column in range(layout.width) if not Column.TOTAL <= column < Column.BUCKETS]
    np.testing.assert_array_equal(found[:, counts], expected[:, counts])
    np.testing.assert_array_equal(floats(found, EXTREMES), floats(expected, EXTREMES))
    # Sums are added up in another order; their rounding is relative to what was added.
    sums, of_cpu = floats(found, ROUNDED), floats(expected, ROUNDED)
    size = np.maximum(of_cpu[:, 1:2], of_cpu[:, 2:])
    assert (np.abs(sums - of_cpu) <= 1e-12 * size).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_numbers_without_their_scale_are_those_of_the_reference(dtype: torch.dtype) -> None:
    tensors, scale = [spread(5000).to(dtype).cuda()], torch.full((), 3.0 * 2**17, device="cuda")
    found, expected = (kernel(tensors, Layout(), Thresholds(), scale).cpu() for kernel in (kernel_for("cuda"), measure))
    assert torch.equal(found[:, Column.BUCKETS :], expected[:, Column.BUCKETS :])
    assert torch.equal(found[:, : Column.TOTAL], expected[:, : Column.TOTAL])


def test_the_same_numbers_give_the_same_bits() -> None:
    tensors = [spread(3_000_001).cuda(), spread(1000).half().cuda()]
    first = kernel_for("cuda")(tensors, Layout(), Thresholds())
    for _ in range(10):
        assert torch.equal(kernel_for("cuda")(tensors, Layout(), Thresholds()), first)


def launches(number: int) -> list[str]:
    """The names of what is launched for so many tensors, on the device and by its copying engine."""
    tensors = [torch.ones(1000 + i, device="cuda") for i in range(number)]
    kernel_for("cuda")(tensors, Layout(), Thresholds())  # compiles, and sends the tables
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        kernel_for("cuda")(tensors, Layout(), Thresholds())
        torch.cuda.synchronize()
    return sorted(event.name for event in seen.events() or () if event.device_type.name == "CUDA")


def test_launches_do_not_grow_with_the_number_of_tensors() -> None:
    few, many = launches(3), launches(400)
    assert few == many
    assert len(many) == 3  # one clears counters, one reads, one packs


@pytest.mark.usefixtures("no_waits")
def test_gradients_that_move_are_followed_without_waiting() -> None:
    kept, packed = [], []
    for step in range(5):
        tensors = [torch.full((size,), float(step), device="cuda") for size in (10, 50_000)]
        kept += tensors  # so that the next ones are elsewhere
        packed.append(kernel_for("cuda")(tensors, Layout(None), Thresholds()))
    torch.cuda.set_sync_debug_mode("default")
    for step, rows in enumerate(packed):
        assert rows[:, Column.MAXIMUM].cpu().view(torch.float64).tolist() == [step, step]


@pytest.mark.usefixtures("no_waits")
def test_measuring_waits_for_nothing() -> None:
    tensors = [torch.ones(3_000_000, device="cuda"), torch.ones(20, 30, device="cuda").T]
    for _ in range(2):  # with and without the tables at hand
        assert kernel_for("cuda")(tensors, Layout(), Thresholds()).shape == (2, Layout().width)


def test_another_stream_than_the_default_one_is_followed() -> None:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    with torch.cuda.stream(stream):
        values = torch.zeros(1_000_000, device="cuda")
        for _ in range(100):
            values += 1
        packed = kernel_for("cuda")([values], Layout(), Thresholds())
    stream.synchronize()
    assert packed[0, Column.MAXIMUM].reshape(1).cpu().view(torch.float64).tolist() == [100.0]


def test_digests_of_weights_are_those_of_the_reference() -> None:
    weights = [part for make in TENSORS.values() for part in make()]
    assert digests([each.cuda() for each in weights]).tolist() == digests_by_torch(weights).tolist()
