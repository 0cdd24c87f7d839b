"""A slot leaves the host alone until its seed is blended in, and seeds come and go without a trace."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from nissa.demo.blueprints import BLUEPRINTS, build
from nissa.demo.network import SLOTS, Host, Slot, build_host, isolated_backward, join, leave, set_rate

IMAGES = torch.rand((16, 1, 8, 8), generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(16) % 10


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.fixture
def host() -> Host:
    return build_host(channels=4, seed=0)


def planted(host: Host, slot: str = "r0c1") -> nn.Module:
    seed = build("depthwise", channels=4, seed=1)
    for parameter in seed.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
    host.slot(slot).plant(seed)
    return seed


def gradients(module: nn.Module) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]


def train(host: Host, *, seed: nn.Module | None = None, steps: int = 5) -> list[Tensor]:
    optimizer = torch.optim.Adam([p for n, p in host.named_parameters() if not n.startswith("slots")], lr=0.01)
    if seed is not None:
        join(optimizer, seed, learning_rate=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(host(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
        if seed is not None:
            isolated_backward(host, "r0c1", IMAGES, LABELS)
        optimizer.step()
    return [p.detach().clone() for n, p in host.named_parameters() if not n.startswith("slots")]


@pytest.mark.parametrize("slot", SLOTS)
def test_at_alpha_zero_the_host_answers_exactly_what_it_answers_alone(host: Host, slot: str) -> None:
    alone = host(IMAGES)
    planted(host, slot)

    assert torch.equal(host(IMAGES), alone)
    assert not torch.equal(host(IMAGES, {slot: 1.0}), alone)


def test_alpha_blends_from_the_host_to_the_seed() -> None:
    slot = Slot()
    slot.plant(Doubling())
    x = torch.tensor([1.0, -3.0])

    assert torch.equal(slot(x), x)
    assert torch.equal(slot(x, 0.5), 1.5 * x)
    assert torch.equal(slot(x, 1.0), 2 * x)


def test_an_alpha_for_one_call_leaves_the_slot_s_own(host: Host) -> None:
    planted(host)
    host.slot("r0c1").alpha = 0.25
    usual = host(IMAGES)
    host(IMAGES, {"r0c1": 1.0})

    assert torch.equal(host(IMAGES), usual)


def test_training_in_isolation_changes_no_weight_of_the_host_by_a_single_bit() -> None:
    bare, grafted = build_host(channels=4, seed=0), build_host(channels=4, seed=0)
    seed = planted(grafted)
    before = [parameter.detach().clone() for parameter in seed.parameters()]

    expected = train(bare)
    found = train(grafted, seed=seed)

    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(seed.parameters(), before, strict=True))


def test_training_in_isolation_gives_the_host_no_gradient(host: Host) -> None:
    seed = planted(host)
    F.cross_entropy(host(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]
    own = [p for n, p in host.named_parameters() if not n.startswith("slots")]
    before = [None if p.grad is None else p.grad.clone() for p in own]

    isolated_backward(host, "r0c1", IMAGES, LABELS)

    for parameter, gradient in zip(own, before, strict=True):
        assert parameter.grad is not None
        assert gradient is not None
        assert torch.equal(parameter.grad, gradient)
        assert parameter.requires_grad
    assert all(gradient is not None for gradient in gradients(seed))


def test_in_isolation_a_seed_gets_the_gradients_it_would_get_if_fully_blended(host: Host) -> None:
    seed = planted(host)
    isolated_backward(host, "r0c1", IMAGES, LABELS)
    isolated = gradients(seed)
    seed.zero_grad()
    host.slot("r0c1").alpha = 1.0
    F.cross_entropy(host(IMAGES), LABELS).backward()  # type: ignore[no-untyped-call]

    for alone, blended in zip(isolated, gradients(seed), strict=True):
        assert alone is not None
        assert blended is not None
        torch.testing.assert_close(alone, blended)


def test_a_seed_s_parameters_join_and_leave_the_optimizer_with_all_it_kept_of_them(host: Host) -> None:
    optimizer = torch.optim.Adam(list(host.parameters()), lr=0.01)
    groups, first = len(optimizer.param_groups), list(optimizer.param_groups[0]["params"])
    seed = planted(host)

    join(optimizer, seed, learning_rate=0.5)
    isolated_backward(host, "r0c1", IMAGES, LABELS)
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.5]
    assert all(parameter in optimizer.state for parameter in seed.parameters())

    leave(optimizer, seed)
    assert len(optimizer.param_groups) == groups
    assert optimizer.param_groups[0]["params"] == first
    assert not any(parameter in optimizer.state for parameter in seed.parameters())


def test_leaving_lets_others_keep_their_state(host: Host) -> None:
    optimizer = torch.optim.Adam(list(host.parameters()), lr=0.01)
    first, second = planted(host, "r0c0"), planted(host, "r0c1")
    join(optimizer, first, learning_rate=0.1)
    join(optimizer, second, learning_rate=0.2)
    for slot in ("r0c0", "r0c1"):
        isolated_backward(host, slot, IMAGES, LABELS)
    optimizer.step()

    leave(optimizer, first)

    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.2]
    assert all(parameter in optimizer.state for parameter in second.parameters())


def test_a_rate_changes_for_one_module_alone(host: Host) -> None:
    optimizer = torch.optim.Adam(list(host.parameters()), lr=0.01)
    seed = planted(host)
    join(optimizer, seed, learning_rate=0.1)

    set_rate(optimizer, seed, 0.05)

    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.05]


def test_a_slot_that_is_cleared_is_empty(host: Host) -> None:
    alone, names = host(IMAGES), set(host.state_dict())
    planted(host)
    host.slot("r0c1").alpha = 1.0
    host.slot("r0c1").clear()

    assert torch.equal(host(IMAGES), alone)
    assert set(host.state_dict()) == names


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_every_blueprint_keeps_the_shape_and_can_learn(blueprint: str) -> None:
    module = build(blueprint, channels=4, seed=0)
    x = torch.rand((2, 4, 6, 6), generator=torch.Generator().manual_seed(0))

    assert module(x).shape == x.shape
    assert any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("blueprint", sorted(set(BLUEPRINTS) - {"norm"}))
def test_a_fresh_seed_repeats_its_input(blueprint: str) -> None:
    x = torch.rand((2, 4, 6, 6), generator=torch.Generator().manual_seed(0))
    assert torch.equal(build(blueprint, channels=4, seed=0)(x), x)


def test_building_depends_on_the_seed_alone_and_leaves_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (build("conv_light", channels=4, seed=seed) for seed in (1, 1, 2))
    build_host(channels=4, seed=1)

    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), same.parameters(), strict=True))
    assert not all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))
