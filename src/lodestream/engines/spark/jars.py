"""The Java archives that Spark needs beside its own: fetched once, and held to their SHA-256 on every use."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

from lodestream.errors import ConfigError, MissingDriverError, TransientError

JARS = {
    coordinate: digest
    for digest, coordinate in map(str.split, files(__package__).joinpath("jars.txt").read_text().splitlines())
}
"""Delta and Kafka for Spark 4.2 and Scala 2.13, without what pyspark brings along: `group:name:version`, SHA-256."""

_TIMEOUT_S = 300


def jar_files(folder: Path, spark_jars: Path) -> list[Path]:
    """The archives, in `folder`; those that are not there yet are fetched by the Ivy that pyspark brings along.

    Ivy takes its mirrors from the user's Ivy or Maven settings, and needs nothing installed but Java.

    Args:
        folder: keeps the archives; safe to delete.
        spark_jars: the folder `jars` of pyspark.

    Raises:
        ConfigError: an archive has other bytes than it should have.
        MissingDriverError: Java is not installed.
        TransientError: the archives cannot be fetched.
    """
    wanted = [folder / _file_name(coordinate) for coordinate in JARS]
    if not all(file.exists() for file in wanted):
        _fetch(folder, spark_jars)
    for file, digest in zip(wanted, JARS.values(), strict=True):
        if not file.exists():
            raise TransientError("a Java archive for Spark was not found in any repository", file=file.name)
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise ConfigError(
                "a Java archive for Spark is not the one that belongs here; delete it, and it is fetched again",
                file=str(file), sha256=digest,
            )  # fmt: skip
    return wanted


def java() -> str:
    """The Java program. Raises MissingDriverError when there is none."""
    found = shutil.which("java")
    if found is None:
        raise MissingDriverError("Spark needs Java 17 or 21 on the PATH; install it", missing="java")
    return found


def _file_name(coordinate: str) -> str:
    _, name, version = coordinate.split(":")
    return f"{name}-{version}.jar"


def _fetch(folder: Path, spark_jars: Path) -> None:
    ivy = next(iter(sorted(spark_jars.glob("ivy-*.jar"))), None)
    if ivy is None:
        raise ConfigError("pyspark has no Ivy to fetch Java archives with; install it anew", folder=str(spark_jars))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        wanted = Path(work, "ivy.xml")
        wanted.write_text(_module())
        command = [java(), "-jar", str(ivy), "-error", "-ivy", str(wanted), "-cache", os.path.join(work, "cache")]
        command += ["-retrieve", os.path.join(work, "[artifact]-[revision].[ext]")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise TransientError("Java archives for Spark take too long to fetch", seconds=_TIMEOUT_S) from error
        for found in Path(work).glob("*.jar"):
            found.replace(folder / found.name)
        if done.returncode:
            raise TransientError(
                "Java archives for Spark cannot be fetched; Ivy or Maven settings of this user name other repositories",
                output=(done.stdout + done.stderr)[-1000:],
            )  # fmt: skip


def _module() -> str:
    wanted = "".join(
        '<dependency org="{}" name="{}" rev="{}" transitive="false" conf="default->master"/>'.format(*name.split(":"))
        for name in JARS
    )
    return (
        '<ivy-module version="2.0"><info organisation="lodestream" module="spark"/>'
        f'<configurations><conf name="default"/></configurations><dependencies>{wanted}</dependencies></ivy-module>'
    )
