"""npm packages for tests: installed from a lock file into `.cache`, once."""

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache" / "npm"
_TIMEOUT_S = 300
_NODE_MIN = 20


class NoNpmError(Exception):
    """Why packages cannot be had here."""


def installed(folder: Path) -> Path:
    """A folder with `node_modules` as the lock file in `folder` says.

    Raises:
        NoNpmError: there is no Node.js, an old one, or no registry that npm can reach.
    """
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NoNpmError(f"not installed: {program}")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    if int(version.strip().lstrip("v").partition(".")[0]) < _NODE_MIN:
        raise NoNpmError(f"Node.js {version.strip()} is older than {_NODE_MIN}")
    lock = folder / "package-lock.json"
    digest = hashlib.sha256(lock.read_bytes() + (folder / "package.json").read_bytes()).hexdigest()[:16]
    place = CACHE / digest
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{digest}.lock", "w", encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (place / "done").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(folder / name, place / name)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
            if done.returncode:
                raise NoNpmError(f"npm cannot install: {(done.stderr or done.stdout)[-300:]}")
            (place / "done").touch()
    return place
