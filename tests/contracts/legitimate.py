"""Healthy programs that resemble a fault."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.optim import SGD, Adam, AdamW

from tests.contracts import networks
from tests.contracts.program import Program
from tests.pathologies import data
from tests.pathologies import networks as shared

PROGRAMS: Final[dict[str, Callable[[], Program]]] = {}


def _program(make: Callable[[], Program]) -> Callable[[], Program]:
    PROGRAMS[make.__name__] = make
    return make


def _plain(model: nn.Module, made: data.Data | None = None) -> Program:
    return Program(model=model, optimizer=Adam(model.parameters(), 2e-3), data=made or data.digits(), steps=150)


@_program
def frozen_backbone() -> Program:
    model = networks.mlp()
    model[0].requires_grad_(requires_grad=False)
    trained = [each for each in model.parameters() if each.requires_grad]
    return replace(_plain(model), optimizer=Adam(trained, 2e-3))


@_program
def frozen_backbone_in_the_optimizer() -> Program:
    model = networks.mlp()
    model[0].requires_grad_(requires_grad=False)
    return _plain(model)


@_program
def backbone_without_gradients() -> Program:
    # Not frozen, but run under no_grad(), with an optimizer of the head.
    body, head = networks.mlp(), nn.Linear(10, 10)
    model = nn.Sequential(body, head)

    def losses(_: int, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            features = body(x)
        return f.cross_entropy(head(features), y)

    return replace(_plain(model), optimizer=Adam(head.parameters(), 1e-2), losses=losses)


@_program
def gradual_unfreezing() -> Program:
    model = networks.mlp()
    model[0].requires_grad_(requires_grad=False)

    def thaw(step: int) -> None:
        if step == 120:
            model[0].requires_grad_(requires_grad=True)

    return replace(_plain(model), begin=thaw)


@_program
def batch_norm_in_evaluation_mode() -> Program:
    model = shared.cnn()

    def fix(_: int) -> None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    return replace(_plain(model, data.images()), begin=fix)


@_program
def backbone_in_evaluation_mode() -> Program:
    body = shared.mlp(64, 48, 32, dropout=0.2).requires_grad_(requires_grad=False)
    model = nn.Sequential(body, nn.Dropout(0.1), nn.Linear(32, 10))

    def fix(_: int) -> None:
        body.eval()

    return replace(_plain(model), begin=fix)


@_program
def model_loaded_in_evaluation_mode() -> Program:
    return replace(_plain(networks.mlp(dropout=0.2).eval()), train_mode=True)


@_program
def evaluation_mode_without_any_effect() -> Program:
    return replace(_plain(networks.mlp(norm=True).eval()), train_mode=False)


@_program
def validation_in_training_mode_without_any_effect() -> Program:
    return replace(_plain(networks.mlp(norm=True)), validate="train")


@_program
def recalibration_before_the_validation() -> Program:
    model, made = shared.cnn(), data.images()

    def after(step: int) -> None:
        if step % 50 == 49:
            with torch.no_grad():
                model(made.x[:64])  # statistics of batch normalisation, in training mode

    return replace(_plain(model, made), after=after)


@_program
def tied_weights() -> Program:
    model = shared.Gpt()
    return replace(_plain(model, data.text()), optimizer=AdamW(model.parameters(), 2e-3), steps=90)


@_program
def idle_experts() -> Program:
    return _plain(networks.Experts(used=2))


def _alternating(turn: Callable[[int], bool]) -> Program:
    model, made = networks.Heads(), data.digits()

    def losses(step: int, x: Tensor, y: Tensor) -> Tensor:
        model.other = turn(step)
        return f.cross_entropy(model(x), y % 2 if model.other else y)

    return replace(_plain(model, made), losses=losses, validate=None)


@_program
def heads_that_alternate_from_step_to_step() -> Program:
    return _alternating(lambda step: step % 2 == 1)


@_program
def heads_that_alternate_from_epoch_to_epoch() -> Program:
    return replace(_alternating(lambda step: step // 130 % 2 == 1), steps=390)


@_program
def low_rank() -> Program:
    model = networks.low_rank()
    trained = [each for each in model.parameters() if each.requires_grad]
    return replace(_plain(model), optimizer=AdamW(trained, 5e-3))


@_program
def only_the_second_factor_of_low_rank() -> Program:
    model = networks.low_rank()
    trained = [each.requires_grad_(name.endswith(".b")) for name, each in model.named_parameters()]
    return replace(_plain(model), optimizer=AdamW([each for each in trained if each.requires_grad], 5e-3))


@_program
def curriculum_of_classes() -> Program:
    made, model = data.digits(), networks.mlp()

    def batch(step: int) -> tuple[Tensor, Tensor]:
        known = (made.y <= 2 + step // 25).nonzero().flatten()
        part = known[torch.randint(len(known), (32,))]
        return made.x[part], made.y[part]

    return replace(_plain(model, made), batches=batch, steps=220, epochs=2)


@_program
def nearly_all_of_one_class() -> Program:
    made, model = data.digits(), networks.mlp()
    common = (made.y == 0).nonzero().flatten()
    rare = (made.y == 1).nonzero().flatten()

    def batch(step: int) -> tuple[Tensor, Tensor]:
        part = common[torch.randint(len(common), (32,))]
        if step % 4 == 0:
            part[0] = rare[step % len(rare)]
        return made.x[part], made.y[part]

    return replace(_plain(model, made), batches=batch, steps=220, epochs=2)


@_program
def accumulation() -> Program:
    return replace(_plain(networks.mlp()), accumulate=4, batch=8)


@_program
def accumulation_cleared_in_place() -> Program:
    return replace(_plain(networks.mlp()), accumulate=4, batch=8, zero="in place")


@_program
def gradients_cleared_through_data() -> Program:
    # As in old tutorials; the versions of gradients look as if they were never cleared.
    model = networks.mlp()

    def clear(_: int) -> None:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.data.zero_()

    return replace(_plain(model), zero="never", begin=clear, batch=16)


@_program
def gradients_copied_into_place() -> Program:
    # Evolution strategies and other estimators write a gradient of their own into the same tensor.
    layer, made = nn.Linear(64, 10), data.digits()
    model = nn.Sequential(layer)

    def losses(_: int, x: Tensor, y: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(f.cross_entropy(model(x), y), [layer.weight])
        if layer.weight.grad is None:
            layer.weight.grad = found.clone()
        else:
            layer.weight.grad.copy_(found)
        return f.cross_entropy(model(x), y).detach()

    program = replace(_plain(model, made), losses=losses, zero="never", batch=4)
    return replace(program, optimizer=SGD([layer.weight], 0.05))


@_program
def whole_data_set_at_each_step() -> Program:
    model, made = networks.mlp(), data.digits().first(200)
    return replace(_plain(model, made), batches=lambda _: (made.x, made.y), epochs=60, steps=60)


@_program
def warm_up_from_zero() -> Program:
    program = _plain(networks.mlp())
    schedule = torch.optim.lr_scheduler.LambdaLR(program.optimizer, lambda step: min(1.0, step / 30))
    return replace(program, after=lambda _: schedule.step())


@_program
def cosine_to_zero() -> Program:
    program = _plain(networks.mlp())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(program.optimizer, 150)
    return replace(program, after=lambda _: schedule.step())


@_program
def one_group_without_a_rate() -> Program:
    model = networks.mlp()
    others = [*model[2].parameters(), *model[4].parameters()]
    groups: list[dict[str, Any]] = [{"params": list(model[0].parameters()), "lr": 0.0}, {"params": others}]
    return replace(_plain(model), optimizer=SGD(groups, 0.05))


@_program
def clipped_like_a_language_model() -> Program:
    return replace(_plain(shared.Gpt(), data.text()), clip=0.1, steps=120)


@_program
def scaler_that_finds_its_scale() -> Program:
    program = _plain(networks.mlp())
    return replace(program, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**127))


@_program
def probabilities_under_their_own_loss() -> Program:
    model = networks.Softmax(networks.mlp(), nn.LogSoftmax(1))
    return replace(_plain(model), loss=f.nll_loss)


@_program
def sigmoid_under_its_own_loss() -> Program:
    model = networks.Softmax(shared.mlp(64, 48, 1), nn.Sigmoid())
    return replace(_plain(model, data.halves()), loss=f.binary_cross_entropy)


@_program
def softmax_under_a_squared_error() -> Program:
    model = networks.Softmax(shared.mlp(64, 48, 2), nn.Softmax(1))
    made = data.halves()
    made = replace(made, y=torch.cat((made.y, 1 - made.y), 1), y_val=torch.cat((made.y_val, 1 - made.y_val), 1))
    return replace(_plain(model, made), loss=f.mse_loss)


@_program
def pixels_that_the_model_normalises() -> Program:
    made = data.images()
    made = replace(made, x=(made.x + 1) * 127, x_val=(made.x_val + 1) * 127)
    return _plain(nn.Sequential(nn.BatchNorm2d(1), shared.cnn()), made)


@_program
def sparse_inputs() -> Program:
    made = data.digits()
    made = replace(made, x=made.x * (made.x > 0.8), x_val=made.x_val * (made.x_val > 0.8))
    return _plain(networks.mlp(), made)


@_program
def zero_last_layer() -> Program:
    model = networks.mlp()
    nn.init.zeros_(shared.linears(model)[-1].weight)
    return _plain(model)


@_program
def logistic_regression_from_zero() -> Program:
    layer = nn.Linear(64, 10)
    nn.init.zeros_(layer.weight)
    return _plain(nn.Sequential(layer))


@_program
def tiny_rate_in_float32() -> Program:
    model = networks.mlp()
    return replace(_plain(model), optimizer=Adam(model.parameters(), 1e-6))


@_program
def another_optimizer_that_is_not_watched() -> Program:
    model = networks.mlp()
    first, second = SGD(model[0].parameters(), 0.02), Adam([*model[2].parameters(), *model[4].parameters()], 2e-3)
    return replace(_plain(model), optimizer=second, others=[first], watched=[second])


@_program
def another_fused_optimizer_that_is_not_watched() -> Program:
    model = networks.mlp()
    first = Adam(model[0].parameters(), 2e-3, fused=True)
    second = Adam([*model[2].parameters(), *model[4].parameters()], 2e-3)
    return replace(_plain(model), optimizer=second, others=[first], watched=[second])


@_program
def several_watched_optimizers() -> Program:
    model = networks.mlp()
    first, second = SGD(model[0].parameters(), 0.02), Adam([*model[2].parameters(), *model[4].parameters()], 2e-3)
    return replace(_plain(model), optimizer=first, others=[second])


@_program
def loss_that_reaches_zero() -> Program:
    # A hinge loss of separable data; once it is zero, all gradients are.
    model, made = nn.Sequential(nn.Linear(64, 1)), data.halves()
    made = replace(made, x=made.x + 4 * made.y, x_val=made.x_val + 4 * made.y_val)

    def hinge(output: Tensor, y: Tensor) -> Tensor:
        return (1 - output * (2 * y - 1)).clamp_min(0).mean()

    return replace(_plain(model, made), loss=hinge, optimizer=SGD(model.parameters(), 0.05))
