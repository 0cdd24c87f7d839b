"""Configuration of a run: models, presets, and loading (precedence: preset < file < environment < argument)."""

from nissa.config.environment_variables import RESERVED_VARIABLES as RESERVED_VARIABLES
from nissa.config.feature_layout import FEATURE_VERSION as FEATURE_VERSION
from nissa.config.feature_layout import SEED_FEATURES as SEED_FEATURES
from nissa.config.feature_layout import feature_names as feature_names
from nissa.config.feature_scaling import FeatureSpec as FeatureSpec
from nissa.config.files import PROFILES as PROFILES
from nissa.config.loading import load as load
from nissa.config.merging import expand as expand
from nissa.config.models import TelemetryConfig as TelemetryConfig
from nissa.config.schema_docs import Setting as Setting
from nissa.config.schema_docs import describe as describe
from nissa.config.sections import ConsoleConfig as ConsoleConfig
from nissa.config.sections import DiagnosisConfig as DiagnosisConfig
from nissa.config.sections import DiagnosticsConfig as DiagnosticsConfig
from nissa.config.sections import FilesConfig as FilesConfig
from nissa.config.sections import GradientConfig as GradientConfig
from nissa.config.sections import LimitsConfig as LimitsConfig
from nissa.config.sections import PerClassConfig as PerClassConfig
from nissa.config.sections import ReplicasConfig as ReplicasConfig
from nissa.config.sections import SpanConfig as SpanConfig
from nissa.config.sharpness import SharpnessConfig as SharpnessConfig
