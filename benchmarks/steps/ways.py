"""The ways of watching: each is a context in which a training runs, and yields what to call before ``optimizer.step()``."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

VANISHING, EXPLODING = 1e-7, 1e3
"""The document's thresholds."""

BeforeStep = Callable[[Tensor], None]
Watching = Callable[[nn.Module, Optimizer, Path], AbstractContextManager[BeforeStep]]


@dataclass(frozen=True, slots=True)
class Way:
    """A way of watching.

    Args:
        watching: Enters it; the folder is where it may write.
        every: Steps from one sample to the next.
        profile: The profile of Nissa that it is, without changes; None for everything else.
    """

    watching: Watching
    every: int = 1
    profile: str | None = None


@contextmanager
def bare(_model: nn.Module, _optimizer: Optimizer, _folder: Path) -> Iterator[BeforeStep]:
    """Watch nothing."""
    yield lambda _loss: None


def nissa(profile: str, **settings: Any) -> Watching:
    """Return what watches with a profile of Nissa, writing to files."""

    @contextmanager
    def watching(model: nn.Module, optimizer: Optimizer, folder: Path) -> Iterator[BeforeStep]:
        import nissa  # noqa: PLC0415 - only what is measured is imported

        given = {"files": {"directory": str(folder)}, "console": {"enabled": False}, **settings}
        with nissa.start(profile, service_name="bench", **given) as run:
            run.watch(model, optimizer)
            with run.epoch(0):
                yield run.log_loss

    return watching


@contextmanager
def hooks(model: nn.Module, _optimizer: Optimizer, _folder: Path) -> Iterator[BeforeStep]:
    """Watch as the seed document describes its tracker: a hook on each parameter, `.item()` on each statistic."""
    import torch  # noqa: PLC0415 - see above

    found: dict[str, dict[str, float]] = {}

    def record(name: str, grad: Tensor) -> None:
        flat = grad.detach().abs().flatten()
        numbers = {"norm": grad.norm().item(), "std": grad.std().item(), "mean": grad.mean().item()}
        for percentile in (1, 25, 50, 75, 99):
            numbers[f"p{percentile}"] = torch.quantile(flat, percentile / 100).item()
        numbers["vanishing"] = (flat < VANISHING).float().mean().item()
        numbers["exploding"] = (flat > EXPLODING).float().mean().item()
        found[name] = numbers

    def hook(name: str) -> Callable[[Tensor], None]:
        return lambda grad: record(name, grad)

    handles = [parameter.register_hook(hook(name)) for name, parameter in model.named_parameters()]
    yield lambda _loss: None
    for handle in handles:
        handle.remove()


@contextmanager
def wandb(model: nn.Module, _optimizer: Optimizer, folder: Path) -> Iterator[BeforeStep]:
    """Watch with ``wandb.watch(log="gradients")``, offline."""
    os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", WANDB_DIR=str(folder))
    import wandb  # noqa: PLC0415 - see above

    run = wandb.init(project="bench", dir=str(folder))
    run.watch(model, log="gradients", log_freq=1)
    yield lambda loss: run.log({"loss": loss.item()})
    run.finish()


@contextmanager
def lightning(model: nn.Module, _optimizer: Optimizer, _folder: Path) -> Iterator[BeforeStep]:
    """Call Lightning's ``grad_norm`` before each step, as its documentation shows."""
    from lightning.pytorch.utilities import grad_norm  # noqa: PLC0415 - see above

    def before(_loss: Tensor) -> None:
        grad_norm(model, norm_type=2)

    yield before


@contextmanager
def pulsegrad(model: nn.Module, optimizer: Optimizer, folder: Path) -> Iterator[BeforeStep]:
    """Watch with pulsegrad, every step."""
    import pulsegrad  # noqa: PLC0415 - see above

    session = pulsegrad.watch(model, optimizer, run_dir=folder / "pulsegrad", k=1)
    with session:
        yield lambda _loss: None


@contextmanager
def torchtel(model: nn.Module, _optimizer: Optimizer, folder: Path) -> Iterator[BeforeStep]:
    """Watch with torchtel, which makes spans and reads no gradient; its spans go to a file."""
    from opentelemetry import metrics, trace  # noqa: PLC0415 - see above
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - see above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - see above
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter  # noqa: PLC0415 - see above
    from torchtel import PyTorchInstrumentor  # noqa: PLC0415 - see above

    provider = TracerProvider()
    with (folder / "spans.jsonl").open("w", encoding="utf-8") as file:
        provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=file)))
        trace.set_tracer_provider(provider)
        metrics.set_meter_provider(MeterProvider())
        PyTorchInstrumentor().instrument(model=model)
        yield lambda _loss: None
        provider.shutdown()


EVERY_STEP = {"gradients": {"every_n_steps": 1}}

WAYS: dict[str, Way] = {
    "bare": Way(bare),
    "minimal": Way(nissa("minimal"), profile="minimal"),
    "standard": Way(nissa("standard"), every=10, profile="standard"),
    "diagnostic": Way(nissa("diagnostic"), profile="diagnostic"),
    "research": Way(nissa("research"), profile="research"),
    "standard, every step": Way(nissa("standard", **EVERY_STEP)),
    "hooks of the document": Way(hooks),
    "wandb.watch": Way(wandb),
    "Lightning grad_norm": Way(lightning),
    "pulsegrad": Way(pulsegrad),
    "torchtel": Way(torchtel),
}
