"""Debian packages that tests of clients need, installed when they are absent and this may be done."""

import functools
import os
import shutil
import subprocess
from pathlib import Path


@functools.cache
def installed(package: str, *wanted: str) -> bool:
    """Whether programs or files are there, after an attempt to install the package that has them."""
    if all(map(_there, wanted)):
        return True
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    surroundings = {"PATH": os.environ["PATH"], "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    for command in (["apt-get", "install"], ["apt-get", "update"], ["apt-get", "install"]):
        more = ["-y", "-qq", "--no-install-recommends", package] if command[1] == "install" else ["-qq"]
        try:
            subprocess.run([*command, *more], env=surroundings, capture_output=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            return False
        if all(map(_there, wanted)):
            return True
    return False


def _there(wanted: str) -> bool:
    """A program on the path, or a file by a pattern."""
    if "/" not in wanted:
        return shutil.which(wanted) is not None
    return any(Path("/").glob(wanted.lstrip("/")))
