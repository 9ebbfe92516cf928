"""Debian's Chromium for tests and screenshots: installed when it is missing and may be, started closed to the world."""

import os
import shutil
import subprocess

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_PACKAGES = ("chromium", "fonts-inter", "fonts-jetbrains-mono")
_TIMEOUT_S = 900


def find() -> tuple[str | None, str]:
    """The browser's path, or None and why there is none; installs it with apt where this process may."""
    for name in _NAMES:
        if path := shutil.which(name):
            return path, ""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return None, "no Chromium here, and it cannot be installed: apt-get and root are needed"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *_PACKAGES]):
        try:
            done = subprocess.run(
                ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *arguments],
                capture_output=True, text=True, env=environment, timeout=_TIMEOUT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return None, f"apt-get {arguments[0]} took longer than {_TIMEOUT_S} s"
        if done.returncode != 0:
            return None, f"apt-get {arguments[0]} failed: {done.stderr.strip()[-300:]}"
    path = shutil.which(_NAMES[0])
    return path, "" if path else "apt-get installed no chromium"
