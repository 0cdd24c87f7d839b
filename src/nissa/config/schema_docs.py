"""Documentation of all settings (path, default, range, meaning), derived from the models."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

_KINDS = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "null": "null",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """Documentation of one setting."""

    path: str
    """Dotted path, as in ``gradients.every_n_steps``."""

    default: object
    """Default value."""

    allowed: str
    """Allowed values, in words."""

    description: str
    """Meaning of the setting."""

    @property
    def variable(self) -> str:
        """Name of the environment variable for the setting."""
        return variable(self.path)


def variable(path: str) -> str:
    """Return the environment variable for a dotted path, as in ``NISSA_GRADIENTS__EVERY_N_STEPS``."""
    return f"NISSA_{path.replace('.', '__').upper()}"


def describe(model: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    """Yield the settings of a model and of its sections, in the order in which they are declared."""
    schemas = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        if section := section_of(model, name):
            yield from describe(section, f"{prefix}{name}.")
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        yield Setting(f"{prefix}{name}", default, _allowed(schemas[name]), " ".join((field.description or "").split()))


def section_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the model class of a field that is a section, None for other fields."""
    field = model.model_fields.get(name)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _allowed(schema: Mapping[str, Any]) -> str:
    """Return the allowed values of a JSON schema in words, for example ``a whole number from 1 to 100``."""
    if "anyOf" in schema:
        return " or ".join(map(_allowed, schema["anyOf"]))
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if schema["type"] == "array":
        return f"a list, each item {_allowed(schema['items'])}"
    if schema["type"] == "object":
        return f"a mapping, each value {_allowed(schema['additionalProperties'])}"
    return _KINDS[schema["type"]] + _range(schema)


def _range(schema: Mapping[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {_figure(schema['minimum'])} to {_figure(schema['maximum'])}"
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{word} {_figure(schema[key])}" for key, word in words.items() if key in schema]
    return f" {' and '.join(bounds)}" if bounds else ""


def _figure(bound: float) -> str:
    return f"{bound:,}".removesuffix(".0")
