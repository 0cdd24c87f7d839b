"""System checks: disk space for the files, and accelerators."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from nissa.doctor.check_result import CheckResult, Level

_LOW: Final = 2**30
"""Minimum free space, bytes; the profile ``research`` can write this much per day."""


def check_files(directory: Path) -> CheckResult:
    """Check that a run could write its files, with a temporary file that is deleted again."""
    absolute = directory.absolute()
    existing = next(each for each in (absolute, *absolute.parents) if each.exists())
    advice = "Choose another folder with NISSA_FILES__DIRECTORY, or configure an exporter."
    if not existing.is_dir():
        return CheckResult("files", Level.ERROR, f"{existing} is in the way of {absolute}: it is no folder.", advice)
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        return CheckResult("files", Level.ERROR, f"Nothing can be written to {existing}: {error.strerror}.", advice)
    if free < _LOW:
        found = f"{existing} has {free / 2**20:,.0f} MiB left for files."
        return CheckResult(
            "files", Level.WARNING, found, "Make room, or choose another folder with NISSA_FILES__DIRECTORY."
        )
    return CheckResult("files", Level.OK, f"{absolute} can be written.")


def check_devices() -> CheckResult:
    """Return the accelerators that torch can use."""
    try:
        import torch  # noqa: PLC0415 - slow, and its absence is a finding of the versions
    except ImportError as error:
        advice = "Install torch for this platform; see pytorch.org."
        return CheckResult("devices", Level.ERROR, f"torch cannot be imported: {error}.", advice)
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return CheckResult(
            "devices", Level.OK, f"{len(names)} GPU: {', '.join(names)}." if names else "CUDA without a GPU."
        )
    if torch.version.cuda and Path("/dev/nvidiactl").exists():
        found = f"There is a driver for GPUs, and torch (built for CUDA {torch.version.cuda}) can use none."
        return CheckResult(
            "devices", Level.WARNING, found, "Compare nvidia-smi with CUDA_VISIBLE_DEVICES and torch's CUDA version."
        )
    return CheckResult("devices", Level.NOTE, f"No GPU; {os.cpu_count()} cores.", "")
