"""What every part of a configuration has in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of every part of a configuration: immutable, and strict about what it is called."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        # A threshold of NaN or infinity would compare false for ever and so switch a check off silently.
        allow_inf_nan=False,
    )
