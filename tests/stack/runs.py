"""Runs that several test modules ask the servers about, each of them once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.stack import Stack
from tests.stack.queries import Past
from tests.stack.training import TRANSPORTS, Made, Transport, environment, once, service_name, train
from tests.support import run_demo

Report = dict[str, Any]
_DEMO_EPOCHS = 40


@dataclass(frozen=True)
class Told:
    """A run of two processes in which everything happened.

    Args:
        service: Its service and its run.
        first: What the process said in which three seeds germinated.
        second: What the process said that resumed the one whose fate was open.
        past: Prometheus at its end.
    """

    service: str
    first: Any
    second: Any
    past: Past


def demonstrated(stack: Stack, stack_folder: Path, folder: Path, transport: Transport) -> Made:
    """Return the demo's report of itself, after it has sent everything; it is run once per transport.

    The first transport is that of every test run, and has fewer epochs: one blueprint after another is still tried.
    """
    arguments = ("--epochs", str(_DEMO_EPOCHS)) if transport == TRANSPORTS[0] else ()

    def make() -> Report:
        environ = environment(stack, transport, service_name("demo")) | {"OTEL_METRIC_EXPORT_INTERVAL": "5000"}
        del environ["OTEL_SERVICE_NAME"]
        report: Report = run_demo(folder, environ, *arguments)
        return report

    made = once(stack_folder, stack, f"demo-{transport}", make)
    assert made.told["directory"] is None
    return made


def everything(stack: Stack, stack_folder: Path, folder: Path, transport: Transport) -> Told:
    """Return what a run says of itself in which everything happens that telemetry has a name for; it is run once."""

    def make() -> list[Any]:
        service = service_name("everything")
        rank = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}
        environ = environment(stack, transport, service) | rank
        # The second process samples no new trace, so that a seed of which nothing is seen is counted.
        unseen = environ | {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
        state = str(folder / "seed.json")
        return [
            service,
            train("everything", folder, environ, state),
            train("resumed", folder, unseen, state),
        ]

    made = once(stack_folder, stack, f"everything-{transport}", make)
    service, first, second = made.told
    return Told(service, first, second, made.past)
