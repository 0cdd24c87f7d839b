"""Memory of a real device, from torch's own books."""

import torch

from nissa.run.memory_usage import device_memory


def test_the_memory_of_a_device_is_that_of_its_tensors() -> None:
    torch.ones(1, device="cuda")
    before = next(each for each in device_memory() if each.device == f"cuda:{torch.cuda.current_device()}")
    held = torch.empty(64 << 20, dtype=torch.uint8, device="cuda")
    after = next(each for each in device_memory() if each.device == before.device)
    assert after.allocated - before.allocated == held.numel()
    assert after.peak >= after.allocated
    assert after.total >= after.reserved >= after.allocated
    assert after.name == torch.cuda.get_device_name()


def test_reading_it_during_the_capture_of_a_graph_does_not_disturb_the_capture() -> None:
    graph, x = torch.cuda.CUDAGraph(), torch.ones(4, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        y = x * 2
        assert [*device_memory()]
    graph.replay()
    torch.cuda.synchronize()
    assert y.tolist() == [2.0] * 4
