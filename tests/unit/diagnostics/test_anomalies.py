from typing import Any

import torch

from nissa import EventType, Severity, TelemetryEvent
from nissa.diagnostics.anomalies import AnomalyWatch
from nissa.gradients.collector import collect_gradients
from nissa.hub.measurements import GradientHealth, GradientsMeasured

EMPTY = collect_gradients([torch.nn.Parameter(torch.zeros(1))]).result().moments


def sample(step: int = 0, env_id: str | None = None, model_name: str | None = None, **layers: Any) -> GradientsMeasured:
    return GradientsMeasured(
        env_id=env_id,
        model_name=model_name,
        step=step,
        time_unix_nano=1_000 + step,
        names=(),
        moments=EMPTY,
        health=GradientHealth(score=0.5, global_norm=1.0, layers=9, **layers),
        lag=0.0,
    )


def kinds(events: list[TelemetryEvent]) -> list[str]:
    return [event.data["anomaly"] for event in events]


def test_a_trouble_is_told_when_it_begins_and_again_after_it_ended() -> None:
    watch = AnomalyWatch()
    found = [watch.begins(sample(vanishing=layers)) for layers in ((), ("a",), ("a",), (), ("a",))]
    assert [kinds(events) for events in found] == [[], ["vanishing"], [], [], ["vanishing"]]


def test_other_layers_in_the_same_trouble_are_no_new_trouble() -> None:
    watch = AnomalyWatch()
    assert kinds(watch.begins(sample(exploding=("a",)))) == ["exploding"]
    assert watch.begins(sample(exploding=("b", "c"))) == []


def test_a_second_kind_of_trouble_is_told_by_itself() -> None:
    watch = AnomalyWatch()
    watch.begins(sample(vanishing=("a",)))
    assert kinds(watch.begins(sample(vanishing=("a",), nonfinite=("b",), exploding=("c",)))) == [
        "nonfinite",
        "exploding",
    ]


def test_models_and_environments_are_kept_apart() -> None:
    watch = AnomalyWatch()
    for env_id, model_name in ((None, None), ("0", None), ("1", None), ("1", "critic")):
        assert kinds(watch.begins(sample(env_id=env_id, model_name=model_name, vanishing=("a",)))) == ["vanishing"]
    assert watch.begins(sample(env_id="1", vanishing=("a",))) == []


def test_the_event_says_what_where_and_when() -> None:
    (event,) = AnomalyWatch().begins(sample(7, env_id="2", model_name="critic", nonfinite=("a", "b")))
    assert event.event_type == EventType.GRADIENT_ANOMALY
    assert (event.severity, event.env_id, event.time_unix_nano) == (Severity.ERROR, "2", 1_007)
    assert event.message == "Gradients are not finite in 2 of 9 layers at step 7: a, b"
    assert event.data == {
        "anomaly": "nonfinite",
        "layers": ["a", "b"],
        "layer_count": 2,
        "step": 7,
        "model": "critic",
    }


def test_what_only_grows_or_shrinks_is_a_warning() -> None:
    for kind in ("vanishing", "exploding"):
        layers: dict[str, Any] = {kind: ("a",)}
        (event,) = AnomalyWatch().begins(sample(**layers))
        assert event.severity is Severity.WARNING


def test_of_many_layers_the_first_five_are_named() -> None:
    (event,) = AnomalyWatch().begins(sample(vanishing=tuple("abcdefg")))
    assert event.message == "Gradients vanish in 7 of 9 layers at step 0: a, b, c, d, e, ..."
    assert event.data["layers"] == list("abcde")
    assert event.data["layer_count"] == 7


def test_healthy_gradients_are_no_event() -> None:
    assert AnomalyWatch().begins(sample()) == []
