import pytest

from nissa.config import PROFILES, SharpnessConfig, TelemetryConfig
from nissa.errors import ConfigurationError


def test_only_research_measures_sharpness() -> None:
    on = [name for name in PROFILES if TelemetryConfig.from_profile(name).sharpness.enabled]
    assert on == ["research"]


def test_methods_are_kept_in_order_and_each_once() -> None:
    config = TelemetryConfig.from_profile("custom", {"sharpness.methods": ["average_case", "critical", "critical"]})
    assert config.sharpness.methods == ("critical", "average_case")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("methods", [], "an empty list measures nothing"),
        ("methods", ["hessian"], "critical"),
        ("scale", 0, "scale"),
        ("scale", 1, "scale"),
        ("samples", 0, "samples"),
        ("budget_milliseconds", 0, "budget_milliseconds"),
        ("every_n_epochs", 0, "every_n_epochs"),
    ],
    ids=["no methods", "unknown method", "no scale", "large scale", "no samples", "no budget", "no epochs"],
)
def test_what_cannot_be_used_is_refused(field: str, value: object, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        TelemetryConfig.from_profile("custom", {"sharpness": {field: value}})


def test_the_summary_says_what_is_measured() -> None:
    assert "sharpness  off" in TelemetryConfig.standard().summary()
    assert "critical, average_case, every 5 epochs, within 500 ms" in TelemetryConfig.research().summary()
    each = TelemetryConfig(sharpness=SharpnessConfig(enabled=True, every_n_epochs=1, methods=("critical",)))
    assert "critical, every epoch" in each.summary()
    compiled = TelemetryConfig(sharpness=SharpnessConfig(enabled=True, compile=True))
    assert "within 500 ms, compiled" in compiled.summary()
