"""Metrics: each once, in UCUM, with attributes that exist."""

import re

from nissa.config.sections import STATISTICS
from nissa.semconv import attributes as attr
from nissa.semconv.metrics import ALL, BY_NAME, EVERY_STREAM, GRADIENT_STATISTICS, Kind, MetricSpec
from tests.cases import for_each

UCUM = re.compile(r"|s|By|\{[a-z_]+\}")
KEYS = {value for name, value in vars(attr).items() if name.isupper()}

OF_OPENTELEMETRY = {"process.memory.usage"}
"""Names of OpenTelemetry's semantic conventions: all others begin with ours."""

every = for_each("spec", ALL, ids=lambda spec: spec.name)


def test_names_are_unique() -> None:
    assert len({spec.name for spec in ALL}) == len(ALL) == len(BY_NAME)


@every
def test_a_name_is_lower_case_dotted_without_unit_and_total(spec: MetricSpec) -> None:
    assert re.fullmatch(r"nissa(\.[a-z][a-z_]*)+", spec.name) or spec.name in OF_OPENTELEMETRY
    assert not spec.name.endswith(("_total", ".total", "_seconds", "_bytes"))


@every
def test_a_unit_is_ucum_and_never_one(spec: MetricSpec) -> None:
    assert UCUM.fullmatch(spec.unit)
    assert spec.unit != "1"


@every
def test_a_count_says_of_what(spec: MetricSpec) -> None:
    if spec.kind in {Kind.COUNTER, Kind.UP_DOWN_COUNTER}:
        assert spec.unit.startswith("{") or (spec.name, spec.unit) == ("process.memory.usage", "By")


@every
def test_a_description_is_one_line(spec: MetricSpec) -> None:
    assert spec.description
    assert "\n" not in spec.description
    assert not spec.description.endswith(".")


@every
def test_attributes_exist_and_name_no_seed(spec: MetricSpec) -> None:
    assert set(spec.attributes) <= KEYS
    assert not {attr.SEED_ID, attr.RUN_ID, *EVERY_STREAM} & set(spec.attributes)
    assert len(set(spec.attributes)) == len(spec.attributes)


@every
def test_only_an_explicit_histogram_has_bounds_and_they_ascend(spec: MetricSpec) -> None:
    assert bool(spec.bounds) == (spec.kind is Kind.HISTOGRAM)
    assert list(spec.bounds) == sorted(set(spec.bounds))


def test_every_statistic_that_can_be_configured_has_a_gauge() -> None:
    assert tuple(GRADIENT_STATISTICS) == STATISTICS
    assert {spec.kind for spec in GRADIENT_STATISTICS.values()} == {Kind.GAUGE}


def test_a_specification_is_a_key() -> None:
    assert len(dict.fromkeys(ALL)) == len(ALL)
