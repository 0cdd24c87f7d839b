"""Version check of Python, torch and the OpenTelemetry packages."""

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

from nissa.doctor.check_result import CheckResult, Level
from nissa.version import VERSION

CHECK: Final = "versions"
_TRAIN: Final = (
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp-proto-grpc",
    "opentelemetry-exporter-otlp-proto-http",
)
"""Packages that OpenTelemetry releases together under one version."""
_LEAST: Final = {"python": (3, 11), "torch": (2, 8), "opentelemetry-sdk": (1, 45)}


def check_versions() -> list[CheckResult]:
    """Return the installed versions, and a finding for each missing or incompatible one."""
    python = ".".join(map(str, sys.version_info[:3]))
    packages = {name: installed(name) for name in ("torch", *_TRAIN)}
    names = ", ".join(f"{name} {found or 'missing'}" for name, found in packages.items())
    return [
        CheckResult(CHECK, Level.OK, f"nissa {VERSION}, Python {python}, {names}."),
        *judge({"python": python, **packages}),
        _kernel(),
    ]


def installed(name: str) -> str | None:
    """Return the version of a distribution; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def judge(found: dict[str, str | None]) -> list[CheckResult]:
    """Return findings for missing, outdated or mismatched versions.

    Args:
        found: Version per distribution, including ``python``; None if it is not installed.
    """
    findings = []
    for name, present in found.items():
        least = _LEAST.get(name)
        if present is None:
            findings.append(CheckResult(CHECK, Level.ERROR, f"{name} is not installed.", f"pip install {name}"))
        elif least is not None and _numbers(present) < least:
            wanted = ".".join(map(str, least))
            findings.append(
                CheckResult(CHECK, Level.ERROR, f"{name} {present} is too old.", f"Install {name} {wanted} or newer.")
            )
    train = {_numbers(present) for name in _TRAIN if (present := found.get(name))}
    if len(train) > 1:
        releases = ", ".join(f"{name} {found[name]}" for name in _TRAIN if found.get(name))
        advice = f"Install one version of all: pip install --upgrade {' '.join(_TRAIN)}"
        findings.append(
            CheckResult(
                CHECK, Level.WARNING, f"OpenTelemetry's packages are of different releases: {releases}.", advice
            )
        )
    return findings


def _numbers(text: str) -> tuple[int, int]:
    major, minor, *_ = [*text.partition("+")[0].split("."), "0"]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)


def _kernel() -> CheckResult:
    if find_spec("nissa.kernels._native") is not None:
        return CheckResult(CHECK, Level.OK, "Gradients on a CPU are measured by the compiled kernel.")
    advice = "Install a C compiler, and then Nissa again, for a faster one that measures the same; on a GPU it makes no difference."
    return CheckResult(
        CHECK,
        Level.NOTE,
        "Nissa was installed without a C compiler: gradients on a CPU are measured by plain torch.",
        advice,
    )
