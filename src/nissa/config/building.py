"""Merge and validation of settings layers; later layers override earlier ones."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from nissa.config.files import CUSTOM, PROFILES
from nissa.config.merging import SettingsLayer, merge_layers
from nissa.config.validation_errors import explain
from nissa.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)

_BOOL = TypeAdapter(bool)


def build(model: type[Model], base: SettingsLayer, *user_layers: SettingsLayer) -> Model:
    """Merge the layers and validate the result as one configuration.

    Args:
        model: Model class of the configuration.
        base: The preset, the lowest layer.
        user_layers: Layers of the user, in rising precedence.

    Raises:
        ConfigurationError: A setting is invalid; lists each problem with its path, allowed values and source layer.
    """
    layers = settle(base, *user_layers)
    merged = merge_layers(layers)
    _refuse_borrowed_label(base, merged)
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise explain(error, model, layers) from None


def settle(base: SettingsLayer, *user_layers: SettingsLayer) -> tuple[SettingsLayer, ...]:
    """Return the layers, lowest first, without the preset's settings that conflict with those of the user."""
    return (_without_idle_percentiles(base, user_layers), *user_layers)


def _without_idle_percentiles(base: SettingsLayer, user_layers: tuple[SettingsLayer, ...]) -> SettingsLayer:
    """Drop the preset's percentiles if the user disabled the histogram, because validation would reject the pair."""
    gradients = merge_layers(user_layers).get("gradients")
    if not isinstance(gradients, Mapping) or "percentiles" in gradients or not _is_off(gradients.get("histogram")):
        return base
    kept = {key: value for key, value in base.values.get("gradients", {}).items() if key != "percentiles"}
    return base._replace(values={**base.values, "gradients": kept})


def _is_off(flag: object) -> bool:
    try:
        return not _BOOL.validate_python(flag)
    except ValidationError:  # not set, or invalid: the model validation reports it
        return False


def _refuse_borrowed_label(base: SettingsLayer, merged: Mapping[str, Any]) -> None:
    """Raise if the label is the name of another preset, because its author expects that preset's settings."""
    label = merged.get("profile_name", CUSTOM)
    started_from = base.values.get("profile_name", CUSTOM)
    if label in PROFILES and label != started_from:
        raise ConfigurationError(
            f"profile_name {label!r} would only label settings that start from {started_from!r}. To start from "
            f"{label!r}, give it as the profile (argument, NISSA_PROFILE, or `profile:` in the file); "
            "for a label, choose a name that no profile has."
        )
