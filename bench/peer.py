"""The peers' environments: is there a Java, and is each peer installed in its `.venv-NAME`?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
JAVA_MIN = 17


def java_missing() -> str | None:
    """Why Spark cannot run here, or None when it can."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(str(Path(home, "bin", "java"))) if home else shutil.which("java")
    if not java:
        return f"Java is not installed: Spark needs version {JAVA_MIN} or later (on Debian: apt install openjdk-17-jre)"
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', told.stderr + told.stdout)
    if told.returncode or not version:
        return f"Java does not start: {java} -version gives {told.stderr.strip()!r}"
    if int(version[1]) < JAVA_MIN:
        return f"Java {version[1]} is too old: Spark needs version {JAVA_MIN} or later"
    return None


def python(name: str = "spark", package: str = "pyspark") -> Path:
    """The interpreter of `.venv-NAME`, which has `package`.

    The environment is made from `requirements/NAME.txt` when it is not there.
    """
    folder, requirements = ROOT / f".venv-{name}", ROOT / "requirements" / f"{name}.txt"
    interpreter = folder / "bin" / "python"
    if not _has(interpreter, package, requirements):
        print(f"installing {package} into {folder.name}", file=sys.stderr)
        if not interpreter.exists():
            venv.create(folder, with_pip=True)
        uv = Path(sys.prefix) / "bin" / "uv"
        install = (
            [uv, "pip", "install", "--python", interpreter] if uv.exists() else [interpreter, "-m", "pip", "install"]
        )
        subprocess.run([*install, "--quiet", "--require-hashes", "-r", requirements], check=True)
    return interpreter


def _has(interpreter: Path, package: str, requirements: Path) -> bool:
    wanted = re.search(rf"^{package}==(\S+)", requirements.read_text(), re.MULTILINE)
    assert wanted
    if not interpreter.exists():
        return False
    code = f"import importlib.metadata as m; print(m.version('{package}'))"
    found = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, check=False)
    return found.stdout.strip() == wanted[1]
