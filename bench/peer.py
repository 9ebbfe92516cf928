"""The peer's environment: is there a Java, and is PySpark installed in `.venv-spark`?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-spark"
REQUIREMENTS = ROOT / "requirements" / "spark.txt"
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


def python() -> Path:
    """The interpreter that has PySpark; its environment is made from the pinned requirements when it is not there."""
    interpreter = FOLDER / "bin" / "python"
    if not _has_spark(interpreter):
        print("installing PySpark into .venv-spark", file=sys.stderr)
        if not interpreter.exists():
            venv.create(FOLDER, with_pip=True)
        uv = Path(sys.prefix) / "bin" / "uv"
        install = (
            [uv, "pip", "install", "--python", interpreter] if uv.exists() else [interpreter, "-m", "pip", "install"]
        )
        subprocess.run([*install, "--quiet", "--require-hashes", "-r", REQUIREMENTS], check=True)
    return interpreter


def _has_spark(interpreter: Path) -> bool:
    wanted = re.search(r"^pyspark==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE)
    assert wanted
    if not interpreter.exists():
        return False
    code = "import importlib.metadata as m; print(m.version('pyspark'))"
    found = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, check=False)
    return found.stdout.strip() == wanted[1]
