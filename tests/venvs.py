"""Programs that others wrote, whose pins are others than ours: each in an environment of its own in `.cache`, once."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_TIMEOUT_S = 300


class NoPackagesError(Exception):
    """Why an environment cannot be had here."""


def installed(name: str) -> Path:
    """The `bin` folder of an environment with what `requirements/<name>.txt` pins.

    Raises:
        NoPackagesError: there is no registry that uv can reach.
    """
    pins = ROOT / "requirements" / f"{name}.txt"
    digest = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:16]
    cache = ROOT / ".cache" / name
    cache.mkdir(parents=True, exist_ok=True)
    place = cache / digest
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    python = str(place / "bin" / "python")
    with open(cache / f"{digest}.lock", "w", encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (place / "done").exists():
            install = [uv, "pip", "install", "-q", "--python", python, "--require-hashes", "-r", str(pins)]
            try:
                for command in ([uv, "venv", "-q", "--clear", "--python", sys.executable, str(place)], install):
                    subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_S)
            except (OSError, subprocess.SubprocessError) as error:
                raise NoPackagesError(f"{name} cannot be installed: {error}") from error
            (place / "done").touch()
    return place / "bin"
