"""Columns of the published table of releases."""

from typing import Final

INTO: Final = "RELEASES_INTO"
"""Variable with the file that the tested releases are written to."""
PACKAGES: Final = (
    "torch", "numpy", "opentelemetry-sdk", "opentelemetry-exporter-otlp", "opentelemetry-exporter-otlp-json-file",
    "protobuf", "grpcio", "requests", "pydantic",
)  # fmt: skip
FIELDS: Final = ("which", "tests", "python", *PACKAGES, "machine", "commit", "date", "load")
