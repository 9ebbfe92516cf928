"""Opens the Spark session that all flows of a run share, or says why that is not possible."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lodestream.engines.spark.jars import JARS, jar_files, java
from lodestream.errors import ConfigError, MissingDriverError, TransientError
from lodestream.lake.disk import random_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import SparkSession

SPARK = "4.2.0"
"""The Spark that the archives belong to."""

CACHE = Path.home() / ".cache" / "lodestream" / "spark"
"""Where the Java archives are kept; safe to delete."""

_REACH_S = 10.0
_EXECUTOR_S, _LOOK_S = 90.0, 0.2
_PORT = 7077
_CLUSTER, _VOLUMES = "spark.databricks.clusterUsageTags.clusterId", "/Volumes/"
"""Of a session on Databricks; where folders are there that outlive a cluster."""
_CHECKPOINTING = "org.apache.spark.sql.execution.streaming.checkpointing"
_STATIC = ("spark.sql.extensions", "spark.sql.catalog.spark_catalog")
_SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    # An expression is evaluated where it stands: a shared one would be computed outside what catches its error.
    "spark.sql.subexpressionElimination.enabled": "false",
    # What is known to hold of a column is worked out for every alias of it, which for wide tables takes minutes.
    "spark.sql.constraintPropagation.enabled": "false",
    # Our plans sort the rows of a key before dedup, which the check refuses although every batch can be sorted.
    "spark.sql.streaming.unsupportedOperationCheck": "false",
    # The stream that is further behind holds the watermark of both, and a row is late by itself, not by its session.
    "spark.sql.streaming.multipleWatermarkPolicy": "min",
    "spark.sql.streaming.sessionWindow.merge.sessions.in.local.partition": "false",
    "spark.sql.streaming.stateStore.providerClass":
        "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.caseSensitive": "true",
}  # fmt: skip
_LOCAL = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.driver.memory": "2g",
    # The default manager starts `readlink` some twenty times for each batch, as Hadoop's native library is not there.
    "spark.sql.streaming.checkpointFileManagerClass": f"{_CHECKPOINTING}.FileSystemBasedCheckpointFileManager",
    # The driver keeps what the pages of its web server would show, which is off: plans as texts, above all.
    "spark.sql.maxPlanStringLength": "200",
    "spark.sql.ui.retainedExecutions": "1",
    "spark.ui.retainedJobs": "1",
    "spark.ui.retainedStages": "1",
    "spark.ui.retainedTasks": "1",
    "spark.ui.liveUpdate.period": "-1",
    "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
}


def open_session(
    master: str | None = None,
    *,
    cache: Path = CACHE,
    python: str = sys.executable,
    settings: Mapping[str, str] | None = None,
) -> SparkSession:
    """A session with Delta and Kafka.

    Args:
        master: where Spark runs: `local[2]`, `spark://host:port`, `yarn`, …; None for the session that is there, as in
            a notebook, else `local[2]`.
        cache: folder for the Java archives.
        python: the interpreter of the workers, which needs lodestream too.
        settings: further Spark settings, which win.

    Raises:
        MissingDriverError: pyspark or Java is not installed.
        ConfigError: another pyspark than the archives are made for, or an address that is none.
        TransientError: the cluster does not answer.
    """
    check_installed()
    from pyspark.sql import SparkSession

    if master is None and (there := SparkSession.getActiveSession()) is not None:
        return prepare(there, settings or {})
    master = master or "local[2]"
    version = importlib.metadata.version("pyspark")
    if version != SPARK:
        raise ConfigError(
            "this pyspark is not the one that Delta is made for", found=version, needs=f"pyspark=={SPARK}"
        )
    java()
    local = master.startswith("local")
    if master.startswith("spark://"):
        _reach(master)
    spark_jars = Path(_folder_of("pyspark"), "jars")
    jars = jar_files(cache, spark_jars)
    chosen = {**_SETTINGS, **(_LOCAL if local else {}), "spark.jars": ",".join(map(str, jars)),
              "spark.pyspark.python": python, **(settings or {})}  # fmt: skip
    builder: Any = SparkSession.builder.master(master).appName("lodestream")
    for key, value in chosen.items():
        builder = builder.config(key, value)
    with _signals_as_they_are():
        session: SparkSession = builder.getOrCreate()
    if master.startswith("spark://"):
        _await_executor(session, master)
    session.sparkContext.setLogLevel("OFF" if local else "ERROR")
    session.sparkContext.pythonExec = python
    _check_delta(session)
    return session


def check_installed() -> None:
    """Raise MissingDriverError when there is no pyspark."""
    if importlib.util.find_spec("pyspark") is None:
        raise MissingDriverError("the Spark engine needs a package: pip install 'lodestream[spark]'", missing="pyspark")


def delta_wanted() -> str:
    """The version of Delta that belongs here."""
    return next(name.split(":")[2] for name in JARS if ":delta-spark_" in name)


def is_remote(session: object) -> bool:
    """Whether a session is on a server of Spark Connect."""
    return type(session).__module__.startswith("pyspark.sql.connect")


def reading_tasks(session: SparkSession) -> int:
    """Among how many tasks the reading of a source is spread: as many as run at once, where that is told, or eight."""
    return 8 if is_remote(session) else max(8, session.sparkContext.defaultParallelism)


def _check_delta(session: Any) -> None:
    """A session that was there before may have brought another Delta along."""
    wanted = delta_wanted()
    try:
        found = str(session.sparkContext._jvm.io.delta.package.VERSION())
    except TypeError:
        found = "none"
    if found != wanted:
        raise ConfigError("the Spark session has another Delta than it needs", found=found, needs=wanted)


def _folder_of(package: str) -> str:
    found = importlib.util.find_spec(package)
    assert found
    assert found.origin
    return str(Path(found.origin).parent)


def _reach(address: str) -> None:
    """Connect once, so that a cluster that is not there is told in seconds and in words."""
    parts = urlsplit(address)
    if not parts.hostname:
        raise ConfigError("not an address of Spark; write spark://host:port", address=address)
    try:
        with socket.create_connection((parts.hostname, parts.port or _PORT), timeout=_REACH_S):
            pass
    except OSError as error:
        raise TransientError("Spark does not answer there", address=address, reason=str(error)) from error


def check_folder(session: SparkSession, folder: str) -> None:
    """See that a folder for checkpoints stays, and that Spark's tasks see there what this process writes.

    Raises:
        ConfigError: it is not so.
    """
    from pyspark.errors import PySparkException

    fix = "name a folder that all machines of the cluster see: --checkpoints DIR, or checkpoints: under lake:"
    if session.conf.get(_CLUSTER, None) is not None and not folder.startswith(_VOLUMES):
        fix = f"--checkpoints {_VOLUMES}CATALOG/SCHEMA/VOLUME/FOLDER"
        raise ConfigError("a cluster's disk goes with it, checkpoints need a volume", checkpoints=folder, fix=fix)
    path = os.path.join(folder, f"check-{random_id()}")
    try:
        os.makedirs(folder, exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(path)
        found = [row[0] for row in session.read.text(path).collect()]
    except (OSError, PySparkException) as error:
        reason = str(error).partition("\n")[0][:300]
        raise ConfigError("Spark cannot keep checkpoints there", checkpoints=folder, reason=reason, fix=fix) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
    if found != [path]:
        raise ConfigError("Spark sees another folder of that name", checkpoints=folder, fix=fix)


def _await_executor(session: Any, address: str) -> None:
    """Wait until the cluster gives us a worker, which it may never do, without a word.

    Raises:
        TransientError: it gives none, or who answers is no master of this Spark.
    """
    context = session.sparkContext._jsc.sc()
    deadline = time.monotonic() + _EXECUTOR_S
    while context.isStopped() or context.getExecutorMemoryStatus().size() < 2:  # the driver is one of them
        if context.isStopped():
            raise TransientError("who answers there is no master of this Spark", address=address, needs=SPARK)
        if time.monotonic() > deadline:
            session.stop()
            raise TransientError(
                "the cluster gives no worker; see that it has some with a core and memory to spare", address=address,
                seconds=_EXECUTOR_S,
            )  # fmt: skip
        time.sleep(_LOOK_S)


@contextlib.contextmanager
def _signals_as_they_are() -> Iterator[None]:
    """Spark takes Ctrl-C for itself when a session is made on the main thread; whoever had it keeps it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def checked(conf: Mapping[str, str]) -> Mapping[str, str]:
    """A person's settings. Raises ConfigError for one that rows depend on."""
    for name in conf:
        if name in _SETTINGS:
            raise ConfigError("this setting of Spark is not to be chosen: rows would be others", conf=name)
    return conf


def prepare(session: SparkSession, conf: Mapping[str, str]) -> SparkSession:
    """Give a session that somebody else made the settings that the flows rely on, and a person's.

    Raises:
        ConfigError: one of those is not to be chosen, or comes too late.
    """
    from pyspark.errors import PySparkException

    for name, setting in {**_SETTINGS, **checked(conf)}.items():
        if name in _STATIC:
            continue
        try:
            session.conf.set(name, setting)
        except PySparkException as error:
            raise ConfigError(
                "this setting of Spark has to be there when its session begins", conf=name, cause=str(error)[:200]
            ) from error
    return session
