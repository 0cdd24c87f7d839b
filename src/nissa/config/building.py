"""One configuration from layers, each over the one before it."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from nissa.config.files import CUSTOM, PROFILES
from nissa.config.merging import SettingsLayer, merge_layers
from nissa.config.validation_errors import explain
from nissa.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)

_BOOL = TypeAdapter(bool)


def build(model: type[Model], base: SettingsLayer, *given: SettingsLayer) -> Model:
    """Validate the layers, last over first, as one configuration.

    Args:
        model: What to build.
        base: The preset, the lowest layer.
        given: What the user gave, in rising precedence.

    Raises:
        ConfigurationError: Names each problem with its path, what is allowed, and the layer it came from.
    """
    layers = settle(base, *given)
    merged = merge_layers(layers)
    _refuse_borrowed_label(base, merged)
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise explain(error, model, layers) from None


def settle(base: SettingsLayer, *given: SettingsLayer) -> tuple[SettingsLayer, ...]:
    """Return the layers as they count, lowest first: what of the preset makes no sense with what was given is left out."""
    return (_without_idle_percentiles(base, given), *given)


def _without_idle_percentiles(base: SettingsLayer, given: tuple[SettingsLayer, ...]) -> SettingsLayer:
    """Drop the preset's percentiles where the user turned the histogram off: nobody asked for both."""
    gradients = merge_layers(given).get("gradients")
    if not isinstance(gradients, Mapping) or "percentiles" in gradients or not _is_off(gradients.get("histogram")):
        return base
    kept = {key: value for key, value in base.values.get("gradients", {}).items() if key != "percentiles"}
    return base._replace(values={**base.values, "gradients": kept})


def _is_off(flag: object) -> bool:
    try:
        return not _BOOL.validate_python(flag)
    except ValidationError:  # not given, or a mistake that the model will name
        return False


def _refuse_borrowed_label(base: SettingsLayer, merged: Mapping[str, Any]) -> None:
    """Refuse another preset's name as a label: whoever writes it expects that preset's settings."""
    label = merged.get("profile_name", CUSTOM)
    started_from = base.values.get("profile_name", CUSTOM)
    if label in PROFILES and label != started_from:
        raise ConfigurationError(
            f"profile_name {label!r} would only label settings that start from {started_from!r}. To start from "
            f"{label!r}, give it as the profile (argument, NISSA_PROFILE, or `profile:` in the file); "
            "for a label, choose a name that no profile has."
        )
