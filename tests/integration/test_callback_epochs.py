"""Epochs of callbacks, which begin and end in different functions."""

import pytest

import nissa
from nissa import EventType, InvalidValueError
from nissa.testing import Telemetry, capture
from tests.integration.conftest import Toy


def test_epochs_of_callbacks_are_those_of_a_with_block(toy: Toy) -> None:
    exported = []
    for callbacks in (False, True):
        with capture() as telemetry, nissa.start("diagnostic", console__enabled=False, process__describe=False) as run:
            run.watch(toy.model, toy.optimizer)
            for number in range(2):
                if callbacks:
                    run.begin_epoch(number)
                    toy.step(run)
                    run.end_epoch()
                else:
                    with run.epoch(number):
                        toy.step(run)
        exported.append([(event.event_type, event.epoch) for event in telemetry.events])
    assert exported[0] == exported[1]
    assert (EventType.EPOCH_COMPLETED, 1) in exported[0]


def test_a_validation_after_the_end_of_an_epoch_belongs_to_it(toy: Toy, nissa_telemetry: Telemetry) -> None:
    with nissa.start("diagnostic", console__enabled=False) as run:
        run.watch(toy.model, toy.optimizer)
        assert run.validate(loss=1.0).epoch is None  # before the first one
        run.begin_epoch(3)
        toy.step(run)
        run.end_epoch()
        assert run.validate(loss=0.5).epoch == 3
    epoch = nissa_telemetry.spans.named("epoch").one()
    validations = nissa_telemetry.spans.named("validation").count(2)
    assert validations[1].parent_id == epoch.span_id
    assert validations[1].attributes["nissa.epoch"] == 3


def test_an_epoch_that_is_open_ends_before_the_next_and_none_is_refused(nissa_telemetry: Telemetry) -> None:
    with nissa.start("diagnostic", console__enabled=False) as run:
        with pytest.raises(InvalidValueError, match="No epoch is open"):
            run.end_epoch()
        with pytest.raises(InvalidValueError, match="Pass a whole number, not str"):
            run.begin_epoch("one")  # type: ignore[arg-type]
        run.begin_epoch(0)
        run.begin_epoch(1)
        run.end_epoch()
    assert [event.epoch for event in nissa_telemetry.events.of(EventType.EPOCH_COMPLETED)] == [0, 1]
