"""Mistakes of a user, each with the error that a type checker reports on its line."""

import torch

import nissa
from nissa import Environment, GateResult, NissaHub, Run, Seed, TelemetryConfig, TelemetryEvent
from nissa.testing import FakeClock, Telemetry, capture


def mistakes(run: Run, model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: Seed, hub: NissaHub) -> None:
    nissa.start(42)  # error: arg-type
    nissa.start("standard", "digits")  # error: call-arg
    nissa.start(run_id=7)  # error: arg-type
    nissa.begin()  # error: attr-defined
    run.watch(model)  # error: call-overload
    run.watch(optimizer, model)  # error: call-overload
    run.log_loss()  # error: call-arg
    run.log_loss([0.1])  # error: arg-type
    run.validate(0.5)  # error: call-arg
    run.validate(loss=0.5, acuracy=0.5)  # error: call-arg
    run.germinate()  # error: call-arg
    run.germinate("s", blueprint=3)  # error: arg-type
    run.environment(None)  # error: arg-type
    run.on_finding(lambda: None)  # error: misc, arg-type
    run.narrative  # error: attr-defined
    environment: Environment = run  # error: assignment
    seed.advance(0.5)  # error: arg-type
    seed.gate(passed=True)  # error: call-arg
    seed.stage = "training"  # error: misc, assignment
    GateResult("G1")  # error: call-arg
    TelemetryEvent()  # error: call-arg
    hub.add_backend(object())  # error: arg-type
    TelemetryConfig.from_profile(1)  # error: arg-type
    nissa.collect_gradients(3)  # error: arg-type


def mistakes_in_tests(telemetry: Telemetry) -> None:
    telemetry.spans.named(1)  # error: arg-type
    telemetry.spans.one().nme  # error: attr-defined
    telemetry.spans.raised  # error: attr-defined
    telemetry.metrics.last()  # error: call-arg
    telemetry.events.of(3)  # error: arg-type
    capture(FakeClock())  # error: call-arg
    FakeClock().advance("1 s")  # error: arg-type
