"""Programs with a fault, by the contract that names it; each has a healthy twin that differs in the fault alone."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.optim import SGD, Adam, AdamW

from tests.contracts import networks
from tests.contracts.program import Program
from tests.pathologies import data
from tests.pathologies import networks as shared


@dataclass(frozen=True)
class Case:
    """A program, and the program without the fault.

    Args:
        layers: Part of the name of each layer of the finding; empty if it may name none.
    """

    contract: str
    name: str
    faulty: Callable[[], Program]
    healthy: Callable[[], Program]
    layers: str = ""


CASES: Final[list[Case]] = []

Architecture = tuple[Callable[[], nn.Module], Callable[[], data.Data]]
ARCHITECTURES: Final[dict[str, Architecture]] = {
    "mlp": (networks.mlp, data.digits),
    "cnn": (shared.cnn, data.images),
    "gru": (lambda: shared.Recurrent(nn.GRU(8, 32, batch_first=True), 10), data.rows),
    "transformer": (shared.Encoder, data.rows),
}


def _case(contract: str, layers: str = "", architectures: Iterable[str] = ("mlp",)) -> Callable[..., None]:
    """Add a function that makes the faulty program for True and the healthy one for False, for several architectures."""

    def add(make: Callable[[nn.Module, data.Data, bool], Program]) -> None:
        for name in architectures:
            build, load = ARCHITECTURES[name]

            def program(
                wrong: bool, build: Callable[[], nn.Module] = build, load: Callable[[], data.Data] = load
            ) -> Program:
                return make(build(), load(), wrong)

            case = Case(
                contract,
                f"{make.__name__}-{name}",
                lambda program=program: program(wrong=True),  # type: ignore[misc]  # a default binds the function
                lambda program=program: program(wrong=False),  # type: ignore[misc]
                layers,
            )
            CASES.append(case)

    return add


def _plain(model: nn.Module, made: data.Data, rate: float = 0.02) -> Program:
    return Program(model=model, optimizer=SGD(model.parameters(), rate, 0.9), data=made)


# Parameters and optimizer.


@_case("unoptimized_parameters", "0.", architectures=("mlp", "cnn"))
def forgotten_first_layer(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    parameters = list(model.parameters())
    return Program(model=model, optimizer=Adam(parameters[2:] if wrong else parameters, 1e-3), data=made)


@_case("unoptimized_parameters", "head", architectures=("gru", "transformer"))
def forgotten_head(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    parameters = [each for name, each in model.named_parameters() if not (wrong and name.startswith("head"))]
    return Program(model=model, optimizer=AdamW(parameters, 1e-3), data=made)


@_case("replaced_parameters", ".", architectures=("mlp", "gru", "transformer"))
def assigned_state(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    program = _plain(model, made)
    state = {name: each.clone() for name, each in model.state_dict().items()}
    kept = next(iter(state))
    del state[kept]  # else the optimizer would hold none of them, which watch() refuses

    def load(step: int) -> None:
        if step == 0:
            model.load_state_dict(state, strict=False, assign=wrong)
            for parameter in model.parameters():
                parameter.requires_grad_(True)

    return replace(program, begin=load)


@_case("replaced_parameters", "2", architectures=("mlp",))
def replaced_layer(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    assert isinstance(model, nn.Sequential)
    if not wrong:
        model[2] = nn.Linear(48, 48)
    program = _plain(model, made)
    if wrong:
        model[2] = nn.Linear(48, 48)
    return program


@_case("unused_parameters", "spare")
def spare_layer(_model: nn.Module, made: data.Data, wrong: bool) -> Program:
    model = networks.Spare()
    if not wrong:
        model.spare.requires_grad_(requires_grad=False)
    return replace(_plain(model, made), steps=160)


@_case("unused_parameters", "first", architectures=("mlp", "gru"))
def detached_half(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    second = networks.mlp() if isinstance(model, nn.Sequential) else nn.Linear(10, 10)
    first = nn.Linear(64, 64) if isinstance(model, nn.Sequential) else model
    whole = networks.Detached(first, second) if wrong else nn.Sequential(first, second)
    return replace(_plain(whole, made), steps=160)


@_case("unchanging_weights", architectures=("mlp", "cnn", "transformer"))
def rounded_away(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    # Updates below the resolution of bfloat16.
    model = model.to(torch.bfloat16)
    made = replace(made, x=made.x.bfloat16(), x_val=made.x_val.bfloat16())
    rate = 1e-7 if wrong else 1e-2
    return Program(model=model, optimizer=SGD(model.parameters(), rate), data=made, loss=_float_loss, steps=90)


def _float_loss(output: Tensor, y: Tensor) -> Tensor:
    return f.cross_entropy(output.float(), y)


@_case("unchanging_weights", architectures=("mlp", "gru"))
def steps_a_copy(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    class Copying(SGD):
        def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
            before = [each.detach().clone() for group in self.param_groups for each in group["params"]]
            super().step(closure)
            if wrong:
                with torch.no_grad():
                    parameters = [each for group in self.param_groups for each in group["params"]]
                    for parameter, old in zip(parameters, before, strict=True):
                        parameter.copy_(old)

    return Program(model=model, optimizer=Copying(model.parameters(), 0.02), data=made)


@_case("only_normalization_trains", architectures=("cnn", "transformer"))
def frozen_but_norms(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    norms = {id(each) for module in model.modules() if "Norm" in type(module).__name__ for each in module.parameters()}
    for name, parameter in model.named_parameters():
        last = name.startswith(("9.", "head."))
        parameter.requires_grad_(id(parameter) in norms or (last and not wrong))
    trained = [each for each in model.parameters() if each.requires_grad]
    return Program(model=model, optimizer=Adam(trained, 1e-3), data=made)


@_case("gradients_never_zeroed", architectures=("mlp", "cnn", "gru", "transformer"))
def never_zeroed(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    return replace(_plain(model, made), zero="never" if wrong else "in place", steps=90)


@_case("gradients_never_zeroed", architectures=("mlp",))
def never_zeroed_adam(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    optimizer = AdamW(model.parameters(), 1e-3)
    return Program(model=model, optimizer=optimizer, data=made, zero="never" if wrong else "before", steps=90)


@_case("gradients_zeroed_before_step", architectures=("mlp", "transformer"))
def zeroed_between(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    return replace(_plain(model, made), zero="between" if wrong else "before")


@_case("gradients_zeroed_before_step", architectures=("mlp", "gru"))
def zeroed_in_place_between(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    program = _plain(model, made)

    def clear(_: int) -> None:
        if wrong:
            program.optimizer.zero_grad(set_to_none=False)

    return replace(program, before=clear)


@_case("gradients_zeroed_before_step")
def detached_loss(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    program = _plain(model, made)
    return replace(program, loss=(lambda output, y: f.cross_entropy(output.detach(), y)) if wrong else f.cross_entropy)


@_case("learning_rate_zero", architectures=("mlp", "gru"))
def schedule_over(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    program = _plain(model, made)
    end = 20 if wrong else 59
    schedule = torch.optim.lr_scheduler.LambdaLR(program.optimizer, lambda step: max(0.0, 1 - step / end))
    return replace(program, after=lambda _: schedule.step())


@_case("clipping_too_low", architectures=("mlp", "cnn"))
def tiny_threshold(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    program = _plain(model, made)
    return replace(program, clip=1e-5 if wrong else 1.0, steps=150, batch=16)


@_case("every_step_skipped")
def always_overflowing(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    # The real scaler with float16 gradients needs a GPU; its logic is the same on the CPU.
    program = _plain(model, made)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return f.cross_entropy(output, y) * (float("inf") if wrong else 1.0)

    return replace(program, scaler=scaler, loss=loss)


@_case("half_precision_underflow", architectures=("mlp",))
def half_underflow(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    model = model.half()
    made = replace(made, x=made.x.half(), x_val=made.x_val.half())

    def loss(output: Tensor, y: Tensor) -> Tensor:
        scale = 1e-7 if wrong else 1.0
        return f.cross_entropy(output.float(), y) * scale

    return Program(model=model, optimizer=SGD(model.parameters(), 0.02), data=made, loss=loss)


# Initialisation.


@_case("constant_initialization", architectures=("mlp", "cnn", "transformer"))
def all_zero(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    return _plain(networks.constant(model, 0.0) if wrong else model, made)


@_case("constant_initialization", "weight", architectures=("mlp", "gru"))
def all_ones(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    return _plain(networks.constant(model, 0.02) if wrong else model, made)


@_case("constant_initialization", "0.weight")
def one_layer(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    assert isinstance(model, nn.Sequential)
    layer = shared.linears(model)[0]
    nn.init.constant_(layer.weight if wrong else layer.bias, 0.1)
    return _plain(model, made)


# Modes.


def _dropped(model: nn.Module) -> nn.Module:
    return networks.mlp(dropout=0.2) if isinstance(model, nn.Sequential) and isinstance(model[0], nn.Linear) else model


@_case("evaluation_mode_in_training", architectures=("mlp", "cnn", "transformer"))
def never_trains(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    model = _dropped(model).eval()  # as it was loaded
    return replace(_plain(model, made), train_mode=not wrong, validate=None)


@_case("evaluation_mode_in_training", architectures=("mlp", "cnn"))
def stays_in_evaluation(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    return replace(_plain(_dropped(model), made), validate="stay" if wrong else "eval", epochs=2, steps=120)


@_case("validation_in_training_mode", architectures=("mlp", "cnn", "transformer"))
def validates_in_training(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    return replace(_plain(_dropped(model), made), validate="train" if wrong else "eval")


# Data and loss.


@_case("same_batch", architectures=("mlp", "cnn", "gru"))
def first_batch_only(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    def batch(step: int) -> tuple[Tensor, Tensor]:
        start = 0 if wrong else 32 * step % 1024
        return made.x[start : start + 32], made.y[start : start + 32]

    return replace(_plain(model, made), batches=batch)


@_case("sorted_batches", architectures=("mlp", "cnn", "transformer"))
def sorted_by_class(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    order = made.y.argsort(stable=True) if wrong else torch.randperm(len(made.y))

    def batch(step: int) -> tuple[Tensor, Tensor]:
        part = order[torch.arange(8 * step, 8 * step + 8) % len(order)]
        return made.x[part], made.y[part]

    return replace(_plain(model, made, 0.005), batches=batch, steps=220, epochs=2)


@_case("probabilities_as_logits", architectures=("mlp", "cnn", "gru"))
def doubled_softmax(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    whole = networks.Softmax(model, nn.Softmax(1))
    log = _of_probabilities
    return replace(_plain(whole, made), loss=f.cross_entropy if wrong else log)


def _of_probabilities(output: Tensor, y: Tensor) -> Tensor:
    return f.nll_loss(output.clamp_min(1e-7).log(), y)


@_case("probabilities_as_logits", architectures=("mlp",))
def doubled_sigmoid(_model: nn.Module, _made: data.Data, wrong: bool) -> Program:
    whole = networks.Softmax(shared.mlp(64, 48, 1), nn.Sigmoid())
    loss = f.binary_cross_entropy_with_logits if wrong else f.binary_cross_entropy
    return replace(_plain(whole, data.halves()), loss=loss)


@_case("unscaled_inputs", architectures=("mlp", "cnn", "gru", "transformer"))
def raw_pixels(model: nn.Module, made: data.Data, wrong: bool) -> Program:
    if wrong:
        made = replace(made, x=(made.x + 1) * 127, x_val=(made.x_val + 1) * 127)
    return replace(_plain(model, made, 1e-4), epochs=2)
