from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, ValidationError

from nissa.config import (
    ConsoleConfig,
    FilesConfig,
    GradientConfig,
    LimitsConfig,
    PerClassConfig,
    SpanConfig,
    TelemetryConfig,
)
from nissa.config.sections import STATISTICS
from tests.cases import for_each

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def fields_of(model: type[BaseModel], prefix: str = "") -> "dict[str, FieldInfo]":
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        found[prefix + name] = field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= fields_of(field.annotation, f"{prefix}{name}.")
    return found


FIELDS = fields_of(TelemetryConfig)


def bounds(field: "FieldInfo") -> set[str]:
    return {
        name for item in field.metadata for name in ("ge", "gt", "le", "lt") if getattr(item, name, None) is not None
    }


@for_each("path", FIELDS)
def test_every_field_says_what_it_is_for(path: str) -> None:
    description = FIELDS[path].description or ""
    assert len(description.split()) >= 3
    assert description.endswith(".")


@for_each("path", FIELDS)
def test_every_field_has_a_default(path: str) -> None:
    assert not FIELDS[path].is_required()


@for_each("path", [path for path, field in FIELDS.items() if field.annotation in (int, float, int | None)])
def test_every_number_has_a_range(path: str) -> None:
    assert bounds(FIELDS[path]) & {"ge", "gt"}
    # A threshold on a gradient may be as large as a float; all else has an upper end.
    assert path.endswith("_threshold") or bounds(FIELDS[path]) & {"le", "lt"}


@pytest.mark.parametrize(
    ("section", "field", "lowest", "highest"),
    [
        (TelemetryConfig, "history_length", 5, 100),
        (GradientConfig, "every_n_steps", 1, 1_000_000),
        (GradientConfig, "max_parameters", 1, 100_000),
        (LimitsConfig, "histogram_buckets", 2, 320),
    ],
)
def test_the_ends_of_a_range_are_allowed_and_what_is_beyond_is_not(
    section: type[BaseModel], field: str, lowest: int, highest: int
) -> None:
    for value in (lowest, highest):
        assert getattr(section.model_validate({field: value}), field) == value
    for value in (lowest - 1, highest + 1):
        with pytest.raises(ValidationError):
            section.model_validate({field: value})


def test_the_defaults_are_those_that_are_documented() -> None:
    config = TelemetryConfig()
    assert (config.profile_name, config.history_length, config.strict) == ("custom", 10, None)
    assert config.gradients == GradientConfig(
        enabled=False,
        every_n_steps=10,
        layers="all",
        histogram=True,
        percentiles=(1, 50, 99),
        statistics=STATISTICS,
        vanishing_threshold=1e-7,
        exploding_threshold=1e3,
        max_parameters=200,
        group_by="parameter",
        top_k=None,
        ranks="auto",
        weight_norms=False,
        update_ratios=False,
    )
    assert config.limits == LimitsConfig(
        queue_size=10_000,
        lifecycle_queue_size=100_000,
        readback_queue_size=64,
        gauge_points_per_export=20_000,
        step_points_per_export=500_000,
        histogram_buckets=160,
        exit_timeout_seconds=5.0,
        validation_wait_seconds=0.05,
    )
    assert config.per_class == PerClassConfig(enabled=False, max_classes=100)
    assert config.spans == SpanConfig(started=True, steps=True)
    assert config.files == FilesConfig(directory=Path("nissa-runs"), export_interval_seconds=5.0)
    assert config.console == ConsoleConfig(enabled=True, color=None)


def test_percentiles_are_kept_sorted_and_once() -> None:
    assert GradientConfig(percentiles=(99, 1, 50, 1.0)).percentiles == (1.0, 50.0, 99.0)


@pytest.mark.parametrize("percentile", [-0.1, 100.1, float("nan")])
def test_a_percentile_is_between_0_and_100(percentile: float) -> None:
    with pytest.raises(ValidationError):
        GradientConfig(percentiles=(percentile,))


def test_statistics_are_kept_once_in_the_documented_order() -> None:
    assert GradientConfig(statistics=("std", "norm", "std")).statistics == ("norm", "std")


@pytest.mark.parametrize("threshold", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["vanishing_threshold", "exploding_threshold"])
def test_a_threshold_is_positive_and_finite(field: str, threshold: float) -> None:
    with pytest.raises(ValidationError, match=field):
        GradientConfig.model_validate({field: threshold})


@pytest.mark.parametrize("vanishing", [1.0, 2.0])
def test_vanishing_lies_below_exploding(vanishing: float) -> None:
    with pytest.raises(ValidationError, match=r"vanishing_threshold \(\d\) must be below exploding_threshold \(1\)"):
        GradientConfig(vanishing_threshold=vanishing, exploding_threshold=1.0)


def test_percentiles_without_a_histogram_are_refused_with_the_way_out() -> None:
    with pytest.raises(ValidationError, match=r"set histogram to true, or percentiles to \[\]"):
        GradientConfig(histogram=False, percentiles=(1,))


def test_no_histogram_means_no_percentiles_where_none_are_asked_for() -> None:
    assert GradientConfig(histogram=False).percentiles == ()
    assert GradientConfig(histogram=False, percentiles=()).percentiles == ()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("all", "all"),
        (["all"], "all"),
        ("encoder.*", ("encoder.*",)),
        ("!type:Linear", ("!type:Linear",)),
        (["a.*", "b"], ("a.*", "b")),
        (["all", "!b"], ("all", "!b")),
        (["re:a[.].*", "type:torch.nn.Linear"], ("re:a[.].*", "type:torch.nn.Linear")),
    ],
    ids=str,
)
def test_layers_are_all_or_selectors(given: Any, kept: object) -> None:
    assert GradientConfig.model_validate({"layers": given}).layers == kept


def test_an_empty_list_of_layers_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValidationError, match="set enabled to false"):
        GradientConfig(layers=())


@pytest.mark.parametrize(
    ("selector", "way_out"),
    [
        ("re:a(", "missing \\), unterminated subpattern at position 1; correct it, or escape the character"),
        ("!re:*", "nothing to repeat at position 0"),
        ("", "selects nothing; write a glob over names, re:<regular expression> or type:<class>"),
        ("!", "selects nothing"),
        ("re:", "selects nothing"),
        ("!type:", "selects nothing"),
        ("type:*Norm", "names no class; write its name, as in type:Linear"),
        ("type:torch.nn.", "names no class"),
    ],
    ids=str,
)
def test_a_selector_that_cannot_be_used_is_refused_with_the_way_out(selector: str, way_out: str) -> None:
    with pytest.raises(ValidationError, match=way_out) as caught:
        GradientConfig(layers=("head.*", selector))
    assert repr(selector) in str(caught.value)


@pytest.mark.parametrize("top_k", [0, -1, 100_001, 1.5, "some"], ids=str)
def test_top_k_is_a_whole_number_of_streams(top_k: Any) -> None:
    with pytest.raises(ValidationError, match="top_k"):
        GradientConfig.model_validate({"top_k": top_k, "max_parameters": 100_000})


def test_top_k_beyond_the_streams_there_may_be_is_refused_with_the_way_out() -> None:
    assert GradientConfig(top_k=5, max_parameters=5).top_k == 5
    with pytest.raises(ValidationError, match=r"top_k \(6\) chooses among at most max_parameters \(5\) streams; lower"):
        GradientConfig(top_k=6, max_parameters=5)


@pytest.mark.parametrize(
    ("field", "choices"),
    [("group_by", ("parameter", "module", "block")), ("ranks", ("auto", "first", "all"))],
    ids=["group_by", "ranks"],
)
def test_a_choice_is_one_of_those_that_are_documented(field: str, choices: tuple[str, ...]) -> None:
    for choice in choices:
        assert getattr(GradientConfig.model_validate({field: choice}), field) == choice
    with pytest.raises(ValidationError, match=field):
        GradientConfig.model_validate({field: "none"})


@pytest.mark.parametrize("field", ["weight_norms", "update_ratios"])
def test_what_is_measured_on_weights_is_on_or_off(field: str) -> None:
    assert getattr(GradientConfig.model_validate({field: True}), field) is True
    with pytest.raises(ValidationError, match=field):
        GradientConfig.model_validate({field: "perhaps"})
