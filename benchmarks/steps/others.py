"""Alternative tools, each used at every step as in its own documentation."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.steps.ways import Calls, Entering, Watching

VANISHING, EXPLODING = 1e-7, 1e3
"""Thresholds of the seed document."""


def hooks(*, percentiles: bool = True) -> Entering:
    """Return the tracker that the seed document describes: a hook on each parameter, `.item()` on each statistic."""

    @contextmanager
    def entering(model: nn.Module, _optimizer: Optimizer, _folder: Path) -> Iterator[Watching]:
        import torch  # noqa: PLC0415 - only what is measured is imported

        found: dict[str, dict[str, float]] = {}

        def record(name: str, grad: Tensor) -> None:
            flat = grad.detach().abs().flatten()
            numbers = {"norm": grad.norm().item(), "std": grad.std().item(), "mean": grad.mean().item()}
            for percentile in (1, 25, 50, 75, 99) if percentiles else ():
                numbers[f"p{percentile}"] = torch.quantile(flat, percentile / 100).item()
            numbers["vanishing"] = (flat < VANISHING).float().mean().item()
            numbers["exploding"] = (flat > EXPLODING).float().mean().item()
            found[name] = numbers

        def hook(name: str) -> Callable[[Tensor], None]:
            return lambda grad: record(name, grad)

        @contextmanager
        def attached() -> Iterator[Calls]:
            handles = [
                parameter.register_hook(hook(name))  # type: ignore[no-untyped-call]  # torch leaves it unannotated
                for name, parameter in model.named_parameters()
            ]
            yield Calls()
            for handle in handles:
                handle.remove()

        yield Watching(attached)

    return entering


@contextmanager
def norms(model: nn.Module, _optimizer: Optimizer, _folder: Path) -> Iterator[Watching]:
    """Compute the norms of all gradients at once and read them: the least that any tool must do."""
    import torch  # noqa: PLC0415 - only what is measured is imported

    def read(_loss: Tensor) -> None:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        torch.stack(torch._foreach_norm(gradients)).tolist()  # noqa: SLF001 - there is no public name for it

    @contextmanager
    def attached() -> Iterator[Calls]:
        yield Calls(read)

    yield Watching(attached)


@contextmanager
def wandb(model: nn.Module, _optimizer: Optimizer, folder: Path) -> Iterator[Watching]:
    """Watch with ``wandb.watch(log="gradients")``, offline."""
    os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", WANDB_DIR=str(folder))
    import wandb  # noqa: PLC0415 - see above

    run = wandb.init(project="bench", dir=str(folder))

    @contextmanager
    def attached() -> Iterator[Calls]:
        run.watch(model, log="gradients", log_freq=1)
        yield Calls(lambda loss: run.log({"loss": loss.item()}))
        run.unwatch(model)

    yield Watching(attached)
    run.finish()


@contextmanager
def lightning(model: nn.Module, _optimizer: Optimizer, _folder: Path) -> Iterator[Watching]:
    """Call Lightning's ``grad_norm`` before each step, as its documentation shows."""
    from lightning.pytorch.utilities import grad_norm  # noqa: PLC0415 - see above

    @contextmanager
    def attached() -> Iterator[Calls]:
        yield Calls(lambda _loss: grad_norm(model, norm_type=2) and None)

    yield Watching(attached)


@contextmanager
def composer(model: nn.Module, optimizer: Optimizer, _folder: Path) -> Iterator[Watching]:
    """Call Composer's ``OptimizerMonitor`` after each step.

    The callback is the package's own; the trainer's state and logger are replaced by stubs. With
    torch's AdamW it measures norms of gradients alone; Composer's own optimizer would add three more norms per parameter.
    """
    from composer.callbacks import OptimizerMonitor  # noqa: PLC0415 - see above

    monitor = OptimizerMonitor(batch_log_interval=1)
    time = SimpleNamespace(batch=SimpleNamespace(value=0))
    state = SimpleNamespace(timestamp=time, model=model, optimizers=[optimizer], fsdp_enabled=False)
    logged: dict[str, float] = {}
    logger = SimpleNamespace(log_metrics=logged.update)

    @contextmanager
    def attached() -> Iterator[Calls]:
        yield Calls(after=lambda: monitor.batch_end(state, logger))

    yield Watching(attached)


@contextmanager
def pulsegrad(model: nn.Module, optimizer: Optimizer, folder: Path) -> Iterator[Watching]:
    """Watch with pulsegrad."""
    import pulsegrad  # noqa: PLC0415 - see above

    os.environ["PULSEGRAD_HOME"] = str(folder)
    entered = iter(range(1_000_000))

    @contextmanager
    def attached() -> Iterator[Calls]:
        with pulsegrad.watch(model, optimizer, run_dir=folder / f"pulsegrad-{next(entered)}", k=1):
            yield Calls()

    yield Watching(attached)


@contextmanager
def torchtel(model: nn.Module, _optimizer: Optimizer, folder: Path) -> Iterator[Watching]:
    """Watch with torchtel, which writes spans to a file and reads no gradients."""
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

        @contextmanager
        def attached() -> Iterator[Calls]:
            instrumentor = PyTorchInstrumentor().instrument(model=model)
            yield Calls()
            instrumentor.uninstrument()

        yield Watching(attached)
        provider.shutdown()
