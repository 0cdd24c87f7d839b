"""The compiled kernel on several threads, which are those of torch."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from nissa.kernels import cores, cpu, native
from nissa.kernels.fallback import FallbackKernel
from nissa.kernels.moments import Layout
from tests.unit.kernels.agreement import DTYPES, LAYOUT, LAYOUTS, SHAPED, THRESHOLDS, agrees, spread

LONG = 1_500_000


@pytest.fixture(params=[1, 2, 3], ids="threads={}".format)
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(native, "_cores", lambda: 3)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many threads torch's runtime was asked for, call by call."""
    calls: list[int] = []
    threads_of = native.TensorTable._threads

    def seen(table: native.TensorTable) -> int:
        threads = threads_of(table)
        if threads > 1:
            calls.append(threads)
        return threads

    monkeypatch.setattr(native.TensorTable, "_threads", seen)
    return calls


def some(dtype: torch.dtype) -> list[torch.Tensor]:
    return [spread(size, seed=size).to(dtype) for size in (7, LONG, 3000, 0, 70_000, 400_000, 1)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [LAYOUTS["default"], LAYOUTS["moments only"], LAYOUTS["fine"]], ids=str)
def test_several_threads_find_what_is_specified(threads: int, layout: Layout, dtype: torch.dtype) -> None:
    assert torch.get_num_threads() == threads
    agrees(cpu.measure, some(dtype), layout)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_several_threads_read_all_layouts_and_dtypes_at_once(threads: int) -> None:
    assert torch.get_num_threads() == threads
    agrees(cpu.measure, [*(make() for make in SHAPED.values()), *(each for dtype in DTYPES for each in some(dtype))])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_half_precision_is_tallied_alike_for_every_number(dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    numbers = every.view(torch.float16).to(dtype) if dtype.itemsize > 2 else every.view(dtype)
    agrees(cpu.measure, [numbers.repeat(3), numbers.repeat(20)], LAYOUTS["fine"])
    agrees(cpu.measure, [numbers.repeat(3), numbers.repeat(20)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_numbers_give_the_same_bits_on_any_number_of_threads(
    dtype: torch.dtype, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_cores", lambda: 3)
    tensors, before = some(dtype), torch.get_num_threads()
    try:
        rows = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            rows += [cpu.measure(tensors, LAYOUT, THRESHOLDS) for _ in range(3)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(rows[0], each) for each in rows)
    assert asked == ([2] * 6 if dtype.itemsize == 2 else [2, 2, 2, 3, 3, 3])  # as many as there are pieces of work


def test_a_model_of_many_parameters_is_read_again_and_again() -> None:
    tensors = [spread(size, seed=size) for size in range(1, 2000)] + [spread(LONG)]
    rows = [cpu.measure(tensors, LAYOUT, THRESHOLDS) for _ in range(20)]
    assert all(torch.equal(rows[0], each) for each in rows)
    agrees(cpu.measure, tensors)


def test_little_work_and_a_single_core_ask_for_no_thread(asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.measure([spread(5000)] * 10, LAYOUT, THRESHOLDS)
    monkeypatch.setattr(native, "_cores", lambda: 1)
    cpu.measure([spread(LONG)], LAYOUT, THRESHOLDS)
    assert asked == []


@pytest.mark.skipif(cores.usable_cores() < 2, reason="there is one core")
def test_other_threads_take_part() -> None:
    numbers, before = spread(40_000_000), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        own, together = time.thread_time(), time.process_time()
        for _ in range(5):
            cpu.measure([numbers], LAYOUT, THRESHOLDS)
        own, together = time.thread_time() - own, time.process_time() - together
    finally:
        torch.set_num_threads(before)
    assert together > 1.2 * own


def test_memory_that_is_missing_is_an_error_and_the_kernel_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    contained = FallbackKernel(cpu._measure, "The compiled kernel for CPUs")
    with monkeypatch.context() as missing:
        missing.setattr(native.library(keep_gil=False), "nissa_statistics_add", lambda *_: -1)
        with pytest.raises(MemoryError):
            contained([spread(LONG)], LAYOUT, THRESHOLDS)
    agrees(contained, [spread(LONG)])
    assert contained._kernel is cpu._measure


def test_threads_that_train_at_once_do_not_mix_what_they_find() -> None:
    with ThreadPoolExecutor(4) as pool:
        checks = [pool.submit(agrees, cpu.measure, [spread(LONG, seed=seed)]) for seed in range(8)]
        for check in checks:
            check.result()


def forked(act: Callable[[], object]) -> int:
    """The exit status of a forked child that does something, which may take a minute."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException:  # noqa: BLE001 - told by the status
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a process with threads that forks
def test_a_forked_child_measures_too(asked: list[int]) -> None:
    numbers = spread(LONG)
    rows = cpu.measure([numbers], LAYOUT, THRESHOLDS)
    before = len(asked)

    def measure() -> None:
        np.testing.assert_array_equal(cpu.measure([numbers], LAYOUT, THRESHOLDS).numpy(), rows.numpy())
        assert len(asked) == before

    assert forked(measure) == 0
    assert torch.equal(cpu.measure([numbers], LAYOUT, THRESHOLDS), rows)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_while_the_kernel_runs_hangs_nobody() -> None:
    numbers, end = spread(LONG), threading.Event()
    measure = partial(cpu.measure, [numbers], LAYOUT, THRESHOLDS)

    def go_on() -> None:
        while not end.is_set():
            measure()

    trains = threading.Thread(target=go_on)
    trains.start()
    try:
        assert [forked(measure) for _ in range(5)] == [0] * 5
    finally:
        end.set()
        trains.join()


def test_a_process_that_used_threads_ends_cleanly() -> None:
    code = """
import threading, torch
from nissa.kernels.cpu import measure
from nissa.kernels.moments import Layout, Thresholds
before = threading.active_count()
measure([torch.randn(5_000_000)], Layout(), Thresholds())
assert threading.active_count() == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
