import pytest
import torch

from nissa.gradients.packing import Packing, one_number, pack


def part(rows: int, device: str = "cpu") -> torch.Tensor:
    return torch.arange(rows * 3, dtype=torch.int64, device=device).reshape(rows, 3)


def test_parts_and_numbers_come_back_as_they_were() -> None:
    tensors, packing = pack([part(2), part(1)], {"loss": torch.tensor([0.5]), "found_inf": torch.tensor(1)})
    rows, numbers = packing.unpack([tensor.numpy() for tensor in tensors])
    assert [row.tolist() for row in rows] == [[0, 1, 2, 3, 4, 5], [0, 1, 2]]
    assert numbers == {"loss": 0.5, "found_inf": 1.0}


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-300, 1 / 3, float("inf"), float("nan")])
def test_a_number_crosses_bit_for_bit(value: float) -> None:
    tensors, packing = pack([], {"loss": torch.tensor(value, dtype=torch.float64)})
    _, numbers = packing.unpack([tensor.numpy() for tensor in tensors])
    assert repr(numbers["loss"]) == repr(value)


def test_nothing_is_nothing() -> None:
    assert pack([], {}) == ([], Packing())
    assert Packing().unpack([]) == ([], {})


def test_on_the_host_where_nothing_is_copied_statistics_stay_where_they_are() -> None:
    rows = part(2)
    tensors, packing = pack([rows], {"loss": torch.tensor(0.5)})
    assert tensors[0].data_ptr() == rows.data_ptr()
    assert (len(tensors), packing.parts) == (2, 1)


def test_a_device_is_copied_from_once() -> None:
    numbers = {"loss": torch.empty(1, device="meta"), "clip_norm": torch.empty((), device="meta")}
    tensors, packing = pack([part(2, "meta")], numbers)
    assert [tensor.shape for tensor in tensors] == [(8,)]
    assert packing == Packing((("loss", "clip_norm"),), 1)
    mixed, packing = pack([part(2, "meta")], numbers | {"found_inf": torch.tensor(0.0)})
    assert [tensor.device.type for tensor in mixed] == ["meta", "cpu"]
    assert packing == Packing((("loss", "clip_norm"), ("found_inf",)), 1)


def test_numbers_are_copied_since_the_caller_may_change_them() -> None:
    loss = torch.tensor([0.5], dtype=torch.float64)
    tensors, packing = pack([], {"loss": loss})
    loss.fill_(9.0)
    assert packing.unpack([tensor.numpy() for tensor in tensors])[1] == {"loss": 0.5}


def test_several_numbers_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"log_loss\(\) takes one number, not a tensor of shape \(2,\)"):
        one_number(torch.zeros(2), "log_loss()")


def test_integers_are_copied_exactly_between_rows_and_scalars() -> None:
    digests = torch.tensor([-1, 2**62 + 1, -(2**63)])
    tensors, packing = pack([part(2)], {"loss": torch.tensor([0.5])}, [digests])
    arrays = [tensor.numpy() for tensor in tensors]
    rows, numbers = packing.unpack(arrays)
    assert numbers == {"loss": 0.5}
    assert [len(each) for each in rows] == [part(2).numel()]
    assert packing.unpack_lanes(arrays).tolist() == digests.tolist()


def test_integers_need_neither_rows_nor_scalars() -> None:
    tensors, packing = pack([], {}, [torch.tensor([7, 8])])
    arrays = [tensor.numpy() for tensor in tensors]
    assert packing.unpack(arrays) == ([], {})
    assert packing.unpack_lanes(arrays).tolist() == [7, 8]
    assert pack([part(1)], {})[1].unpack_lanes([part(1).numpy()]).tolist() == []
