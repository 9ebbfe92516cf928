"""Java programs for tests: their jars, resolved by Maven once and remembered."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lodestream.errors import MissingDriverError, TransientError

CACHE = Path.home() / ".cache" / "lodestream"
"""Where resolved class paths and prepared folders are kept; safe to delete."""

_TIMEOUT_S = 600


def missing() -> str | None:
    """Why Java programs cannot be started here; None when they can."""
    lacking = [name for name in ("java", "mvn") if shutil.which(name) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else None


def class_path(artifacts: Sequence[str], cache: Path = CACHE) -> str:
    """The class path of artifacts with all they need at run time.

    Args:
        artifacts: `group:name:version` each.
        cache: remembers what was resolved.

    Raises:
        MissingDriverError: there is no Java or no Maven.
        TransientError: Maven cannot fetch them.
    """
    if reason := missing():
        raise MissingDriverError("Java programs need java and mvn on the PATH; install both", reason=reason)
    key = hashlib.sha256("\n".join(sorted(artifacts)).encode()).hexdigest()[:16]
    known = cache / f"{key}.classpath"
    if known.exists():
        found = known.read_text()
        if all(map(os.path.exists, found.split(os.pathsep))):
            return found
    cache.mkdir(parents=True, exist_ok=True)
    found = _resolve(artifacts)
    part = known.with_suffix(f".{os.getpid()}")
    part.write_text(found)
    part.replace(known)
    return found


def _resolve(artifacts: Sequence[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        pom, out = Path(folder, "pom.xml"), Path(folder, "classpath")
        pom.write_text(_pom(artifacts))
        done = subprocess.run(
            ["mvn", "-q", "-B", "-f", str(pom), "dependency:build-classpath", "-Dmdep.includeScope=runtime",
             f"-Dmdep.outputFile={out}"],
            capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode or not out.exists():
            raise TransientError(
                "Maven cannot resolve artifacts; look at its output", artifacts=", ".join(artifacts),
                output=(done.stdout + done.stderr)[-2000:],
            )  # fmt: skip
        return out.read_text().strip()


def _pom(artifacts: Sequence[str]) -> str:
    wanted = "".join(
        "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>".format(
            *artifact.split(":")
        )
        for artifact in artifacts
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>lodestream</groupId><artifactId>peers</artifactId>"
        f"<version>1</version><dependencies>{wanted}</dependencies></project>"
    )
