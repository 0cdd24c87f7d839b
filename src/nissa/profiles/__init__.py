"""What a run measures: configuration models, presets, and loading (preset < file < environment < argument)."""

from nissa.profiles.describing import Setting as Setting
from nissa.profiles.describing import describe as describe
from nissa.profiles.environment import RESERVED_VARIABLES as RESERVED_VARIABLES
from nissa.profiles.features import FEATURE_VERSION as FEATURE_VERSION
from nissa.profiles.features import SEED_FEATURES as SEED_FEATURES
from nissa.profiles.features import feature_names as feature_names
from nissa.profiles.files import PROFILES as PROFILES
from nissa.profiles.loading import load as load
from nissa.profiles.merging import expand as expand
from nissa.profiles.models import TelemetryConfig as TelemetryConfig
from nissa.profiles.sections import ConsoleConfig as ConsoleConfig
from nissa.profiles.sections import DiagnosticsConfig as DiagnosticsConfig
from nissa.profiles.sections import FilesConfig as FilesConfig
from nissa.profiles.sections import GradientConfig as GradientConfig
from nissa.profiles.sections import LimitsConfig as LimitsConfig
from nissa.profiles.sections import PerClassConfig as PerClassConfig
from nissa.profiles.sections import SpanConfig as SpanConfig
from nissa.profiles.sharpness import SharpnessConfig as SharpnessConfig
from nissa.profiles.squashing import FeatureSpec as FeatureSpec
