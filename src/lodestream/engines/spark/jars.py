"""The Java archives that Spark needs beside its own: fetched once, and held to their SHA-256 on every use."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lodestream.errors import ConfigError, MissingDriverError, TransientError

JARS = {
    "com.fasterxml.jackson.datatype:jackson-datatype-jdk8:2.13.5": "e58761751fea8a00dc626aae1c5f1be38c5cfd487aeb333d933a4ab5f5a73c55",
    "io.delta:delta-kernel-api:4.4.0": "ee9b5a14ac3b7efdff4d61a58478fe8eb0e5a3fbca43889dca7290795fe79a11",
    "io.delta:delta-kernel-defaults:4.4.0": "225c975199e4718b38ee5b7e6da7f19e9585024262b2cec2656b32151a856b0b",
    "io.delta:delta-kernel-unitycatalog:4.4.0": "cea22dfb4ac562b3cd27bf652697750e8336009d73fb06631363aaaad5345ffa",
    "io.delta:delta-spark_4.2_2.13:4.4.0": "27d4fd8b1f879535c573ed1c718177d6a27f24d3e626ba02e216369725721ead",
    "io.delta:delta-storage:4.4.0": "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc",
    "io.unitycatalog:unitycatalog-client:0.6.0": "48257499a86b801a3e2372cec55ac226ca1c1c7eabe5c118e7302f29a1fdbc19",
    "io.unitycatalog:unitycatalog-hadoop:0.6.0": "c47b63c961c87102b9e1d63809a0915ba4c86b7652f57c8d39ca3a05b441a150",
    "org.apache.commons:commons-pool2:2.13.1": "f77a5060d6936a9144023584232f9de3f2248f1abfe156e9d31795f18770674f",
    "org.apache.kafka:kafka-clients:3.9.2": "014b4ef36884478a932641818b080c36a8f8e2e92dc771e800c9d2694f4f83d8",
    "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0": "64539c45e5d39f7ddb747312c239f38f5208d08c1a0ddf7d70beb2fbd9373705",
    "org.apache.spark:spark-token-provider-kafka-0-10_2.13:4.2.0": "641c7947afc8aa1189e433b7c2d305293993c8691bc1c2062d6d4f513b12518c",
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
    files = [folder / _file_name(coordinate) for coordinate in JARS]
    if not all(file.exists() for file in files):
        _fetch(folder, spark_jars)
    for file, digest in zip(files, JARS.values(), strict=True):
        if not file.exists():
            raise TransientError("a Java archive for Spark was not found in any repository", file=file.name)
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise ConfigError(
                "a Java archive for Spark is not the one that belongs here; delete it, and it is fetched again",
                file=str(file), sha256=digest,
            )  # fmt: skip
    return files


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
