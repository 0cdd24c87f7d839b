"""Base class of the configuration sections."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base class of all configuration sections: immutable, and unknown keys raise an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        # Comparisons with a threshold of NaN or infinity are always false, which would disable a check silently.
        allow_inf_nan=False,
    )
