"""Loops in the style of public training code, each watched as its author would, and compared with a float64 reference.

`Observed.expect` stands where the weights are about to change. What a run exported must be what was there.
"""

import copy
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

import nissa
from nissa import MemoryBackend
from tests.distributed.launching import run_ranks
from tests.loops.observed import Observed

STEPS = 4


def batch(number: int, rows: int = 6, columns: int = 4, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    inputs = torch.randn(rows, columns, generator=generator, dtype=dtype)
    return inputs, (inputs.sum(1, keepdim=True) > 0).to(dtype)


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)


def loss_of(model: Callable[[Tensor], Tensor], number: int, dtype: torch.dtype = torch.float64) -> Tensor:
    inputs, targets = batch(number, dtype=dtype)
    return functional.binary_cross_entropy_with_logits(model(inputs), targets)


def clipped(observed: Observed) -> None:
    """Epochs, a scheduler per step, gradients clipped by their norm."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=6)
    observed.run.watch(model, optimizer)
    for epoch in range(2):
        with observed.run.epoch(epoch):
            for number in range(3):
                optimizer.zero_grad()
                loss = loss_of(model, number)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                observed.run.log_loss(loss)
                observed.expect(model, loss)
                optimizer.step()
                scheduler.step()


def accumulated(observed: Observed) -> None:
    """Four micro-batches per step, whose losses are divided."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    observed.run.watch(model, optimizer)
    losses = []
    for number in range(4 * STEPS):
        loss = loss_of(model, number) / 4
        loss.backward()
        observed.run.log_loss(loss, scale=4)
        losses.append(loss.item() * 4)
        if (number + 1) % 4 == 0:
            observed.expect(model, losses)
            optimizer.step()
            optimizer.zero_grad()
            losses.clear()


def half_precision(observed: Observed) -> None:
    """Autocast and a scaler, gradients unscaled and clipped; one batch overflows, and its step is skipped."""
    model = network(torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    observed.run.watch(model, optimizer, scaler=scaler)
    for number in range(STEPS + 1):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, number, torch.float32)
        observed.run.log_loss(loss)
        scaler.scale(loss * (torch.inf if number == 2 else 1)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if number != 2:
            observed.expect(model, loss.detach())
        scaler.step(optimizer)
        scaler.update()


def scaled(observed: Observed) -> None:
    """A scaler that unscales by itself, inside its step."""
    model = network(torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    observed.run.watch(model, optimizer, scaler=scaler)
    for number in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, number, torch.float32)
        observed.run.log_loss(loss)
        scaler.scale(loss).backward()
        observed.expect(model, loss.detach(), divisor=scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()


def closure(observed: Observed) -> None:
    """LBFGS, which evaluates its closure several times per step: the first gradients are those of the step."""
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3)
    observed.run.watch(model, optimizer)
    for number in range(STEPS):
        evaluations = 0

        def evaluate(number: int = number) -> Tensor:
            nonlocal evaluations
            optimizer.zero_grad()
            loss = loss_of(model, number)
            loss.backward()
            evaluations += 1
            if evaluations == 1:
                observed.expect(model, loss)
            return loss

        observed.run.log_loss(optimizer.step(evaluate))


def truncated(observed: Observed) -> None:
    """Backpropagation through time, truncated: the state of a recurrent network is detached between steps."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"cell": nn.GRU(3, 5, batch_first=True), "head": nn.Linear(5, 3)}).double()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-2)
    observed.run.watch(model, optimizer)
    sequence, state = torch.randn(2, 8 * STEPS + 1, 3, dtype=torch.float64), None
    for begin in range(0, 8 * STEPS, 8):
        optimizer.zero_grad()
        output, state = model["cell"](sequence[:, begin : begin + 8], state)
        state = state.detach()
        loss = functional.mse_loss(model["head"](output), sequence[:, begin + 1 : begin + 9])
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.01)
        observed.run.log_loss(loss)
        observed.expect(model, loss)
        optimizer.step()


def adversarial(observed: Observed) -> None:
    """A generator and a discriminator; the backward pass of each leaves gradients in the other."""
    torch.manual_seed(0)
    generator, discriminator = nn.Linear(2, 4).double(), network()
    generators = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.9))
    discriminators = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.9))
    observed.run.watch(discriminator, discriminators, name="discriminator")
    observed.run.watch(generator, generators, name="generator")
    for number in range(STEPS):
        real, ones = batch(number)[0], torch.ones(6, 1, dtype=torch.float64)
        fake = generator(torch.randn(6, 2, dtype=torch.float64))
        discriminators.zero_grad()
        judged = functional.binary_cross_entropy_with_logits(discriminator(real), ones)
        judged = judged + functional.binary_cross_entropy_with_logits(discriminator(fake.detach()), 0 * ones)
        judged.backward()
        observed.run.log_loss(judged, model="discriminator")
        observed.expect(discriminator, judged, name="discriminator")
        discriminators.step()
        generators.zero_grad()
        fooled = functional.binary_cross_entropy_with_logits(discriminator(fake), ones)
        fooled.backward()
        observed.run.log_loss(fooled, model="generator")
        observed.expect(generator, fooled, name="generator")
        generators.step()


def policy_gradient(observed: Observed) -> None:
    """REINFORCE: an episode per step, returns as weights, and the loss logged as a number after the step."""
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    observed.run.watch(policy, optimizer)
    for episode in range(STEPS):
        chosen = torch.distributions.Categorical(logits=policy(batch(episode)[0]))
        actions = chosen.sample()
        returns = actions.double().flip(0).cumsum(0).flip(0)
        loss = -(chosen.log_prob(actions) * (returns - returns.mean())).mean() - 0.01 * chosen.entropy().mean()
        optimizer.zero_grad()
        loss.backward()
        observed.expect(policy, loss)
        optimizer.step()
        observed.run.log_loss(loss.item())


def proximal_policy(observed: Observed) -> None:
    """PPO: several passes over one rollout, actor and critic with one optimizer, parameters in groups."""
    torch.manual_seed(0)
    actor, critic = nn.Linear(4, 2), nn.Linear(4, 1)
    agent = nn.ModuleDict({"actor": actor, "critic": critic}).double()
    groups: list[dict[str, Any]] = [{"params": actor.parameters()}, {"params": critic.parameters(), "lr": 1e-2}]
    optimizer = torch.optim.Adam(groups, lr=1e-3)
    observed.run.watch(agent, optimizer)
    for rollout in range(2):
        states, rewards = batch(rollout)
        with torch.no_grad():
            actions = torch.distributions.Categorical(logits=actor(states)).sample()
            before = torch.distributions.Categorical(logits=actor(states)).log_prob(actions)
        for _ in range(3):
            after = torch.distributions.Categorical(logits=actor(states)).log_prob(actions)
            values = critic(states)
            advantages, ratio = (rewards - values.detach()).flatten(), (after - before).exp()
            gained = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
            loss = 0.5 * functional.mse_loss(values, rewards) - gained
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            observed.run.log_loss(loss)
            observed.expect(agent, loss)
            optimizer.step()


class LowRank(nn.Module):
    """Linear layer with a trained correction of low rank; the layer itself is frozen."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=False)
        self.lora_a = nn.Parameter(torch.randn(rank, base.in_features, dtype=base.weight.dtype))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank, dtype=base.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        return out + x @ self.lora_a.T @ self.lora_b.T


def low_rank(observed: Observed) -> None:
    """LoRA: most parameters are frozen and have no gradient."""
    model = network()
    model[0], model[2] = LowRank(model[0]), LowRank(model[2])  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-2)
    observed.run.watch(model, optimizer)
    for number in range(STEPS):
        loss = loss_of(model, number)
        optimizer.zero_grad()
        loss.backward()
        observed.run.log_loss(loss)
        observed.expect(model, loss)
        optimizer.step()


def fused(observed: Observed) -> None:
    """A fused optimizer, whose step receives scale and overflow from the scaler and skips on its own."""
    model = network(torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    observed.run.watch(model, optimizer, scaler=scaler)
    for number in range(STEPS + 1):
        optimizer.zero_grad()
        loss = loss_of(model, number, torch.float32)
        observed.run.log_loss(loss)
        scaler.scale(loss * (torch.inf if number == 1 else 1)).backward()
        if number != 1:
            observed.expect(model, loss.detach(), divisor=scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()


def schedule_free(observed: Observed) -> None:
    """A schedule-free optimizer, switched between its weights for training and for evaluation."""
    model = network()
    optimizer: Any = import_module("pytorch_optimizer").ScheduleFreeAdamW(model.parameters(), lr=1e-2)
    observed.run.watch(model, optimizer)
    for epoch in range(2):
        with observed.run.epoch(epoch):
            optimizer.train()
            for number in range(3):
                optimizer.zero_grad()
                loss = loss_of(model, number)
                loss.backward()
                observed.run.log_loss(loss)
                observed.expect(model, loss)
                optimizer.step()
            optimizer.eval()
            observed.run.validate(loss=loss_of(model, 9).item())


def sharpness_aware(observed: Observed) -> None:
    """SAM in two calls: the gradients at the perturbed weights are those that the weights change by."""
    model = network()
    optimizer: Any = import_module("pytorch_optimizer").SAM(model.parameters(), torch.optim.SGD, lr=0.1)
    observed.run.watch(model, optimizer)
    for number in range(STEPS):
        loss = loss_of(model, number)
        loss.backward()
        optimizer.first_step(zero_grad=True)
        loss_of(model, number).backward()
        observed.run.log_loss(loss)
        observed.expect(model, loss)
        optimizer.second_step(zero_grad=True)


def lookahead(observed: Observed) -> None:
    """Lookahead around another optimizer; its slow weights move every second step."""
    model = network()
    optimizer: Any = import_module("pytorch_optimizer").Lookahead(torch.optim.SGD(model.parameters(), lr=0.1), k=2)
    observed.run.watch(model, optimizer)
    for number in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, number)
        loss.backward()
        observed.run.log_loss(loss)
        observed.expect(model, loss)
        optimizer.step()


def compiled(observed: Observed) -> None:
    """A compiled model: its parameters keep the names that they have in the model."""
    model = network()
    fast: Any = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.SGD(fast.parameters(), lr=0.1)
    observed.run.watch(fast, optimizer)
    for number in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(fast, number)
        loss.backward()
        observed.run.log_loss(loss)
        observed.expect(model, loss)
        optimizer.step()


def accelerated(observed: Observed) -> None:
    """accelerate: model and optimizer as they were prepared, gradients accumulated and clipped by it."""
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = network()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    observed.run.watch(model, optimizer)
    losses = []
    for number in range(2 * STEPS):
        with accelerator.accumulate(model):
            loss = loss_of(model, number)
            accelerator.backward(loss)
            observed.run.log_loss(loss)
            losses.append(loss.item())
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.2)
                observed.expect(model, losses)
                losses.clear()
            optimizer.step()
            optimizer.zero_grad()


def sparse(observed: Observed) -> None:
    """Embeddings with sparse gradients, of which a step sees a few rows."""
    torch.manual_seed(0)
    model = nn.EmbeddingBag(50, 4, mode="sum", sparse=True).double()
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.1)
    observed.run.watch(model, optimizer)
    for number in range(STEPS):
        optimizer.zero_grad()
        loss = model(torch.tensor([[1, 1, 7], [2, number, 3]])).square().mean()
        loss.backward()
        observed.run.log_loss(loss)
        observed.expect(model, loss)
        optimizer.step()


def averaged(observed: Observed) -> None:
    """A moving average of the weights beside the model, evaluated instead of it."""
    model = network()
    average = AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.NAdam(model.parameters(), lr=1e-2)
    observed.run.watch(model, optimizer)
    for number in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, number)
        loss.backward()
        observed.run.log_loss(loss)
        observed.expect(model, loss)
        optimizer.step()
        average.update_parameters(model)
        observed.run.validate(loss=loss_of(average, 9).item())


def divided(observed: Observed) -> None:
    """Matrices trained by Muon and the rest by AdamW."""
    model = network()
    matrices = [each for each in model.parameters() if each.ndim == 2]
    rest = [each for each in model.parameters() if each.ndim != 2]
    muon, adamw = torch.optim.Muon(matrices, lr=1e-2), torch.optim.AdamW(rest, lr=1e-3)
    observed.run.watch(model, {"muon": muon, "adamw": adamw})
    for number in range(STEPS):
        loss = loss_of(model, number)
        loss.backward()
        observed.run.log_loss(loss)
        for name, parameters in (("muon", matrices), ("adamw", rest)):
            observed.expect(model, loss if name == "muon" else None, name=name, part=parameters)
        for optimizer in (muon, adamw):
            optimizer.step()
            optimizer.zero_grad()


def distilled(observed: Observed) -> None:
    """A frozen teacher, and a student whose loss is the sum of two."""
    teacher, student = network().eval(), network()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(0.5)
    optimizer = torch.optim.Adagrad(student.parameters(), lr=0.1)
    observed.run.watch(student, optimizer)
    for number in range(STEPS):
        with torch.no_grad():
            soft = teacher(batch(number)[0])
        optimizer.zero_grad()
        loss = 0.7 * functional.mse_loss(student(batch(number)[0]), soft) + 0.3 * loss_of(student, number)
        loss.backward()
        observed.run.log_loss(loss)
        observed.expect(student, loss)
        optimizer.step()


class TwoTowers(nn.Module):
    """Contrastive model; its temperature is a parameter of one element."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(4, 3), nn.Linear(4, 3)
        self.temperature = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        left, right = functional.normalize(self.image(images)), functional.normalize(self.text(texts))
        logits: Tensor = left @ right.T * self.temperature.exp()
        return logits


def contrastive(observed: Observed) -> None:
    """Two towers and a temperature, which is a parameter without dimensions."""
    model = TwoTowers().double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=True)
    observed.run.watch(model, optimizer)
    for number in range(STEPS):
        logits = model(batch(number)[0], batch(number + 10)[0])
        loss = functional.cross_entropy(logits, torch.arange(6)) + functional.cross_entropy(logits.T, torch.arange(6))
        optimizer.zero_grad()
        loss.backward()
        observed.run.log_loss(loss)
        observed.expect(model, loss)
        optimizer.step()


def recomputed(observed: Observed) -> None:
    """Activation checkpointing, with tied weights."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"embed": nn.Embedding(7, 5), "block": nn.Linear(5, 5), "head": nn.Linear(5, 7, bias=False)})
    model = model.double()
    model["head"].weight = model["embed"].weight
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    observed.run.watch(model, optimizer)
    tokens = torch.arange(14).reshape(2, 7) % 7
    for _ in range(STEPS):
        hidden = checkpoint(model["block"], model["embed"](tokens), use_reentrant=False)
        loss = functional.cross_entropy(model["head"](hidden).transpose(1, 2), tokens.roll(-1, 1))
        optimizer.zero_grad()
        loss.backward()
        observed.run.log_loss(loss)
        observed.expect(model, loss)
        optimizer.step()


def functional_gradients(observed: Observed) -> None:
    """Gradients from `torch.func`, assigned by hand."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    observed.run.watch(model, optimizer)

    def objective(parameters: dict[str, Tensor], number: int) -> Tensor:
        return loss_of(lambda inputs: torch.func.functional_call(model, parameters, (inputs,)), number)

    for number in range(STEPS):
        weights = {name: each.detach() for name, each in model.named_parameters()}
        found, loss = torch.func.grad_and_value(objective)(weights, number)
        for name, parameter in model.named_parameters():
            parameter.grad = found[name]
        observed.run.log_loss(loss)
        observed.expect(model, loss)
        optimizer.step()


def meta_learned(observed: Observed) -> None:
    """MAML: second derivatives through an inner step, which is no step of the optimizer."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    observed.run.watch(model, optimizer)
    for number in range(STEPS):
        weights: dict[str, Tensor] = dict(model.named_parameters())

        def adapted(inputs: Tensor, weights: dict[str, Tensor] = weights) -> Tensor:
            out: Tensor = torch.func.functional_call(model, weights, (inputs,))
            return out

        inner = torch.autograd.grad(loss_of(adapted, number), [*weights.values()], create_graph=True)
        moved = {name: each - 0.1 * grad for (name, each), grad in zip(weights.items(), inner, strict=True)}
        loss = loss_of(lambda inputs, moved=moved: adapted(inputs, moved), number + 10)  # type: ignore[misc]
        optimizer.zero_grad()
        loss.backward()
        observed.run.log_loss(loss)
        observed.expect(model, loss)
        optimizer.step()


def guarded(observed: Observed) -> None:
    """A loop that leaves out batches whose loss is not finite, and zeroes a total in place for its own log."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, nesterov=True, momentum=0.9)
    observed.run.watch(model, optimizer)
    total = torch.zeros((), dtype=torch.float64)
    for number in range(STEPS + 1):
        loss = loss_of(model, number) * (torch.nan if number == 2 else 1)
        if not torch.isfinite(loss):
            continue
        optimizer.zero_grad()
        loss.backward()
        total += loss.detach()
        observed.run.log_loss(total)
        observed.expect(model, loss)
        total.zero_()
        optimizer.step()


def resumed(observed: Observed) -> None:
    """A checkpoint in the middle: weights and optimizer state are loaded into the same objects."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    observed.run.watch(model, optimizer)
    for number in range(STEPS):
        if number == 2:
            saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
            model.load_state_dict(saved[0])
            optimizer.load_state_dict(saved[1])
        optimizer.zero_grad()
        loss = loss_of(model, number)
        loss.backward()
        observed.run.log_loss(loss)
        observed.expect(model, loss)
        optimizer.step()


LOOPS = (
    clipped, accumulated, closure, truncated, adversarial, policy_gradient, proximal_policy, low_rank, schedule_free,
    sharpness_aware, lookahead, compiled, accelerated, sparse, averaged, divided, distilled, contrastive, recomputed,
    functional_gradients, meta_learned, guarded, resumed,
)  # fmt: skip
"""Their gradients are float64."""

SINGLE = (half_precision, scaled, fused)
"""Their gradients are float32, and the reference is what they are in float64."""


@pytest.mark.parametrize("loop", [*LOOPS, *SINGLE], ids=lambda loop: loop.__name__)
def test_a_run_exports_the_losses_and_the_gradients_that_a_loop_trained_with(
    loop: Callable[[Observed], None],
) -> None:
    memory = MemoryBackend()
    with nissa.start("diagnostic", backends=[memory], console__enabled=False) as run:
        observed = Observed(run, memory)
        loop(observed)
    observed.check(1e-6 if loop in SINGLE else 1e-12)


def replicated(rank: int, folder: str) -> None:
    """One of two spawned ranks: each has its own batches, and the gradients of a step are the mean of both."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    memory = MemoryBackend()
    with nissa.start("diagnostic", backends=[memory], console__enabled=False, files__directory=folder) as run:
        observed, model = Observed(run, memory), network()
        replica = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(replica.parameters(), lr=0.1)
        run.watch(replica, optimizer)
        for number in range(STEPS):
            optimizer.zero_grad()
            loss = loss_of(replica, 2 * number + rank)
            loss.backward()
            run.log_loss(loss)
            observed.expect(model, loss)
            optimizer.step()
    observed.check(1e-12, measured=rank == 0)
    distributed.barrier()
    distributed.destroy_process_group()


def test_spawned_ranks_export_the_gradients_that_they_agreed_on(tmp_path: Path) -> None:
    run_ranks("tests.loops.test_public_loops", "replicated", tmp_path)
