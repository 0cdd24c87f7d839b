"""Configuration model of a run."""

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import yaml
from pydantic import Field

from nissa.config.analytics import AnalyticsConfig
from nissa.config.building import build
from nissa.config.feature_layout import feature_names, feature_specs
from nissa.config.files import CUSTOM, PROFILES, preset, read_file
from nissa.config.merging import SettingsLayer, expand
from nissa.config.section import Section
from nissa.config.sections import (
    ConsoleConfig,
    DiagnosisConfig,
    DiagnosticsConfig,
    FilesConfig,
    GradientConfig,
    LimitsConfig,
    LogsConfig,
    PerClassConfig,
    ProcessConfig,
    ReplicasConfig,
    SpanConfig,
)
from nissa.config.sharpness import SharpnessConfig
from nissa.config.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from nissa.config.feature_scaling import FeatureSpec


class TelemetryConfig(Section):
    """Settings of a run: measurements, history, console output and export.

    The constructors of this class do not read environment variables. ``nissa.config.load`` does, and ``nissa.start``
    calls it.
    """

    profile_name: str = CUSTOM
    """Name of the profile that the configuration started from, or a label of your own."""

    history_length: int = Field(default=10, ge=5, le=100)
    """Number of epoch snapshots to keep for each environment."""

    strict: bool | None = None
    """Raise on an illegal seed transition; with null only under pytest."""

    overhead_budget: float | None = Field(default=None, gt=0, le=1)
    """Maximum share of step time for telemetry, 0.02 for 2 %. Gradients are then sampled as rarely as this requires, on
    the same steps on all ranks, and never more often than ``gradients.every_n_steps``. With null there is no limit."""

    step_phases: bool = True
    """Export the host time of data, forward, backward and optimizer of each step. Forward and backward need hooks on the
    watched model, and data an observed ``DataLoader``; all are removed at the end of the run."""

    gradients: GradientConfig = GradientConfig()
    """Measurement of gradients."""

    per_class: PerClassConfig = PerClassConfig()
    """Per-class statistics to keep."""

    spans: SpanConfig = SpanConfig()
    """Optional spans to write."""

    logs: LogsConfig = LogsConfig()
    """Log records and warnings to export."""

    process: ProcessConfig = ProcessConfig()
    """Description of the process, and its memory."""

    diagnostics: DiagnosticsConfig = DiagnosticsConfig()
    """Thresholds of findings."""

    diagnosis: DiagnosisConfig = DiagnosisConfig()
    """Diagnosis of loops without epochs."""

    sharpness: SharpnessConfig = SharpnessConfig()
    """Measurement of sharpness, the curvature of the loss at the current weights."""

    analytics: AnalyticsConfig = AnalyticsConfig()
    """Costs of blueprints, and the prior for untried ones."""

    replicas: ReplicasConfig = ReplicasConfig()
    """Comparison of weights between ranks."""

    limits: LimitsConfig = LimitsConfig()
    """Limits on memory, series and time."""

    files: FilesConfig = FilesConfig()
    """Output files, used if no exporter is configured."""

    console: ConsoleConfig = ConsoleConfig()
    """Console output during training."""

    @classmethod
    def from_profile(cls, name: str, overrides: "Mapping[str, Any] | None" = None) -> Self:
        """Build a configuration from a preset and overrides; environment variables are not read.

        Args:
            name: ``minimal``, ``standard``, ``diagnostic``, ``research``; or ``custom`` for the bare defaults.
            overrides: Settings that override the preset, nested or with flat keys (see ``nissa.config.expand``).

        Raises:
            ConfigurationError: The profile or a setting does not exist, or a value is invalid.
        """
        return build(cls, preset(name), SettingsLayer("overrides", expand(overrides or {})))

    @classmethod
    def from_yaml(cls, path: "str | PathLike[str]", overrides: "Mapping[str, Any] | None" = None) -> Self:
        """Build a configuration from a YAML file and overrides; environment variables are not read.

        The file may name its base profile: ``profile: standard``. A ``profile_name`` with the name of a preset has the
        same effect. Without either, the base is the defaults of the models.

        Raises:
            ConfigurationError: The file cannot be read, or contains an unknown setting or an invalid value.
        """
        file = read_file(path)
        base = preset(CUSTOM if file.profile is None else file.profile, named_by=file.layer.source)
        return build(cls, base, file.layer, SettingsLayer("overrides", expand(overrides or {})))

    @classmethod
    def minimal(cls) -> Self:
        """Return the ``minimal`` profile: losses, accuracies and seeds."""
        return cls.from_profile("minimal")

    @classmethod
    def standard(cls) -> Self:
        """Return the ``standard`` profile: that of ``minimal`` plus sampled gradients."""
        return cls.from_profile("standard")

    @classmethod
    def diagnostic(cls) -> Self:
        """Return the ``diagnostic`` profile: gradients of every step, and accuracy per class."""
        return cls.from_profile("diagnostic")

    @classmethod
    def research(cls) -> Self:
        """Return the ``research`` profile: full gradient distributions and a long history."""
        return cls.from_profile("research")

    @cached_property
    def feature_specs(self) -> "tuple[FeatureSpec, ...]":
        """Names, ranges and meanings of the features that ``nissa.signals_to_features`` returns."""
        return feature_specs(self)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the vector."""
        return feature_names(self)

    @cached_property
    def feature_count(self) -> int:
        """Length of the feature vector, known before training starts."""
        return len(self.feature_names)

    def to_yaml(self) -> str:
        """Return all settings as YAML; ``from_yaml`` restores an equal configuration from it."""
        settings = self.model_dump(mode="json")
        if self.profile_name not in (*PROFILES, CUSTOM):  # `from_yaml` would look up a lone label as a base profile
            settings = {"profile": CUSTOM, **settings}
        return yaml.dump(settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True)

    def summary(self) -> str:
        """Return a readable summary of the configuration, a few lines long."""
        return summarise(self)

    def model_copy(self, *, update: "Mapping[str, Any] | None" = None, deep: bool = False) -> Self:
        """Return a copy without the cached feature properties, which pydantic would copy although settings changed."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("feature_specs", "feature_names", "feature_count"):
            copied.__dict__.pop(name, None)
        return copied


class _Dumper(yaml.SafeDumper):
    """YAML dumper that writes lists on one line, because those of a configuration are short."""


def _one_line(dumper: _Dumper, items: list[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Dumper.add_representer(list, _one_line)
