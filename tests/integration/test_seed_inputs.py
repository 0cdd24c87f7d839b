"""Values about seeds that cannot be used: each is refused with the fix, and costs nothing else."""

import logging
from collections.abc import Callable
from typing import Any, Final

import pytest
import torch

import nissa
from nissa import GateResult, InvalidValueError, Run, Seed, Stage
from nissa.events import EventType
from nissa.seeds.checkpoint import state_dict
from nissa.seeds.slots import SeedRecord
from nissa.testing import Telemetry
from tests.cases import for_each

Anything: Any = object()


class OnDevice:
    """Stands for a tensor on a device, which must not be waited for."""

    device = torch.device("cuda", 0)

    def __float__(self) -> float:
        raise AssertionError


def wrong(**fields: Any) -> GateResult:
    given: Any = {"gate": "G2", "passed": True} | fields
    return GateResult(**given)


SEED_CALLS: Final[dict[str, tuple[Callable[[Any], object], str]]] = {
    "stage, unknown": (lambda seed: seed.advance("trainning"), r"advance\(\): Unknown stage .* 'TRAINING'"),
    "stage, none": (lambda seed: seed.advance(None), r"advance\(\): Pass a Stage"),
    "stage, number": (lambda seed: seed.advance(99), r"advance\(\): Unknown stage"),
    "alpha of a stage": (lambda seed: seed.advance("training", alpha="half"), r"advance\(alpha=...\): Pass a number"),
    "alpha, none": (lambda seed: seed.set_alpha(None), r"set_alpha\(\): Pass a number, not NoneType"),
    "alpha, text": (lambda seed: seed.set_alpha("0.5"), r"set_alpha\(\): Pass a number, not str"),
    "alpha, percent": (lambda seed: seed.set_alpha(50), r"set_alpha\(\): Pass a fraction from 0 to 1, not 50"),
    "alpha, nan": (lambda seed: seed.set_alpha(float("nan")), r"set_alpha\(\): Pass a fraction"),
    "alpha, several": (lambda seed: seed.set_alpha(torch.ones(2)), r"set_alpha\(\): "),
    "alpha, device": (lambda seed: seed.set_alpha(OnDevice()), r"set_alpha\(\): Pass a number on the host"),
    "gate, text": (lambda seed: seed.gate("G2"), r"gate\(\): Pass a GateResult, .* not str"),
    "gate, none": (lambda seed: seed.gate(None), r"gate\(\): Pass a GateResult"),
    "gate without a name": (lambda seed: seed.gate(wrong(gate=None)), r"gate\(\): Pass a name"),
    "gate without a decision": (lambda seed: seed.gate(wrong(passed="yes")), r"gate\(\): Pass GateResult\(passed"),
    "score": (lambda seed: seed.gate(wrong(score=12.0)), r"gate\(GateResult\(score=...\)\): Pass a fraction"),
    "checks": (lambda seed: seed.gate(wrong(checks_failed=5)), r"checks_failed=...\)\): Pass a list of names"),
    "message of a gate": (lambda seed: seed.gate(wrong(message=5)), r"message=...\)\): Pass text"),
    "improvement in points": (lambda seed: seed.fossilize(improvement=2.5), r"2.5 points are 0.025"),
    "improvement, text": (
        lambda seed: seed.fossilize(improvement="much"),
        r"fossilize\(improvement=...\): Pass a number",
    ),
    "improvement, nan": (lambda seed: seed.cull(reason="r", improvement=float("nan")), r"cull\(improv.* Pass None"),
    "reason": (lambda seed: seed.cull(reason=["late"]), r"cull\(reason=...\): Pass a name as text, not list"),
    "violation": (lambda seed: seed.isolation_violation(3), r"isolation_violation\(\): Pass text"),
}
RUN_CALLS: Final[dict[str, tuple[Callable[[Any], object], str]]] = {
    "id, none": (lambda run: run.germinate(None), r"germinate\(\): Pass a name"),
    "id, empty": (lambda run: run.germinate(" "), r"germinate\(\): Pass a name, not an empty text"),
    "blueprint": (lambda run: run.germinate("s", blueprint=Anything), r"germinate\(blueprint=...\): Pass a name"),
    "slot": (lambda run: run.germinate("s", slot=["r0"]), r"germinate\(slot=...\): Pass a name"),
    "module": (lambda run: run.germinate("s", module="conv"), r"germinate\(module=...\): Pass a torch.nn.Module"),
    "parameters, text": (lambda run: run.germinate("s", parameters="4k"), r"germinate\(parameters=...\): Pass a whole"),
    "parameters, negative": (lambda run: run.germinate("s", parameters=-1), r"parameters=...\): .* at least 0, not -1"),
    "state, none": (lambda run: run.resume_seed(None), r"resume_seed\(\): .*state_dict"),
    "state, text": (lambda run: run.resume_seed("seed.pt"), r"resume_seed\(\): .*state_dict"),
    "state, incomplete": (lambda run: run.resume_seed({"version": 1}), r"resume_seed\(\): .*incomplete"),
    "state of another environment": (
        lambda run: run.resume_seed(_state()),
        r"resume it with run\.environment\('7'\)\.resume_seed",
    ),
    "module of a state": (lambda run: run.resume_seed(None, module=3), r"resume_seed\(module=...\): Pass a torch"),
    "path": (lambda run: run.checkpoint(5).__enter__(), r"checkpoint\(\): Pass a path, not int"),
}


def _state() -> dict[str, Any]:
    record = SeedRecord(
        seed_id="s", env_id="7", slot_id=None, blueprint_id=None, parameters=None, germinated_at=1, stage_since=1
    )
    return state_dict(record)


@pytest.fixture
def strict() -> Run:
    return nissa.start("minimal", console__enabled=False)


@pytest.fixture
def lenient() -> Run:
    return nissa.start("minimal", strict=False, console__enabled=False)


@for_each("call, fix", [*SEED_CALLS.values()], ids=lambda case: str(case[1]))
def test_a_strict_run_raises_for_a_seed_with_the_fix(strict: Run, call: Callable[[Seed], object], fix: str) -> None:
    seed = strict.germinate(f"seed-{len(strict.seeds)}")
    with pytest.raises(InvalidValueError, match=fix):
        call(seed)
    assert (seed.stage, seed.alpha) == (Stage.GERMINATED, None)


@for_each("call, fix", [*RUN_CALLS.values()], ids=lambda case: str(case[1]))
def test_a_strict_run_raises_for_a_beginning_with_the_fix(strict: Run, call: Callable[[Run], object], fix: str) -> None:
    with pytest.raises(InvalidValueError, match=fix):
        call(strict)
    assert strict.seeds == []


def test_otherwise_every_call_returns_and_is_counted(lenient: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "nissa"):
        for number, (call, _) in enumerate(SEED_CALLS.values()):
            call(lenient.germinate(f"seed-{number}"))
        for call, _ in RUN_CALLS.values():
            call(lenient)
    # resume_seed(None, module=3) has two invalid values
    assert lenient.hub.rejections == {"invalid_value": len(SEED_CALLS) + len(RUN_CALLS) + 1}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert lenient.hub.error_boundary.faults == {}


def test_a_refused_value_costs_nothing_else(nissa_telemetry: Telemetry) -> None:
    with nissa.start("minimal", strict=False, console__enabled=False) as run:
        seed = run.germinate("s", blueprint=Anything, slot=(0, 2), parameters="many")  # type: ignore[arg-type]
        assert (seed.blueprint, seed.slot, seed.parameters) == (None, "(0, 2)", None)
        seed.advance("training", alpha="half")  # type: ignore[arg-type]
        assert (seed.stage, seed.alpha) == (Stage.TRAINING, None)
        seed.gate(GateResult("G2", passed=True, score=12.0, checks_passed="gain"))  # type: ignore[arg-type]
        seed.set_alpha(0.3)
        seed.set_alpha(2.0)
        assert seed.alpha == 0.3
        seed.set_alpha(1 + 1e-9)  # rounding
        assert seed.alpha == 1.0
        seed.cull(reason="no gain", improvement=2.5)
        assert seed.improvement is None
        gate = nissa_telemetry.events.of(EventType.SEED_GATE_EVALUATED).one()
        assert gate.data == {"gate": "G2", "passed": True, "checks_passed": ["gain"], "checks_failed": []}
        assert nissa_telemetry.events.of(EventType.SEED_CULLED).one().data == {"reason": "no gain"}


def test_the_handle_of_a_refused_beginning_records_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with nissa.start("minimal", strict=False, console__enabled=False) as run:
        for seed in (run.germinate(None), run.resume_seed({})):  # type: ignore[arg-type]
            seed.advance("training")
            seed.gate(GateResult("G2", passed=True))
            seed.set_alpha(0.5)
            seed.fossilize()
            assert (seed.stage, seed.alpha, run.seeds) == (Stage.GERMINATED, None, [])
    assert "is not recorded: its beginning was refused" in caplog.text


def test_the_parameters_of_a_lazy_module_count_when_they_exist() -> None:
    with nissa.start("minimal", console__enabled=False) as run:
        module = torch.nn.Sequential(torch.nn.LazyLinear(2), torch.nn.Linear(2, 3))
        assert run.germinate("s", module=module).parameters == 9
