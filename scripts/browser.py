"""Install the system's Chromium for the tests of pages; playwright's own build is not used."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
"""What the browser is called, best first."""

_HOW: Final = "Install Chromium (apt-get install chromium, for example) to run the tests in tests/browser."


def main(arguments: Sequence[str]) -> int:
    """Install Chromium if it is missing. With ``--optional`` a lack of permission is not a failure."""
    if any(map(shutil.which, NAMES)):
        return 0
    if os.geteuid() == 0 and shutil.which("apt-get") and _install():
        return 0
    sys.stderr.write(f"There is no Chromium. {_HOW}\n")
    return 0 if "--optional" in arguments else 1


def _install() -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", NAMES[0]]):
        done = subprocess.run(["apt-get", *command], env=environment, stdout=subprocess.DEVNULL, check=False)  # noqa: S603, S607
        if done.returncode:
            return False
    return shutil.which(NAMES[0]) is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
