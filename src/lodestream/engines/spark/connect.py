"""Opens a session on a server of Spark Connect, or says what the server lacks."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from lodestream.engines.spark.session import SPARK, delta_wanted
from lodestream.errors import ConfigError, MissingDriverError, TransientError
from lodestream.lake.disk import random_id
from lodestream.version import VERSION

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_REACH_S = 10.0
_FIX = "see the guide on Spark for what the server needs"


def connect(url: str, folder: str) -> SparkSession:
    """A session on a server, once it is seen that the server can do what the flows need.

    Args:
        url: `sc://host:port`, with parameters such as `;token=…` behind a slash.
        folder: where checkpoints are kept, and the lake, unless that is in an object store.

    Raises:
        MissingDriverError: pyspark or what its client needs is not installed.
        TransientError: nobody answers there.
        ConfigError: not an address; the server has another Spark, Delta or Lodestream, or does not see the folder.
    """
    for package in ("pyspark", "grpc"):
        if importlib.util.find_spec(package) is None:
            raise MissingDriverError(
                "Spark Connect needs packages: pip install 'lodestream[spark-connect]'", missing=package
            )
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    _reach(url)
    try:
        session: SparkSession = SparkSession.builder.remote(url).getOrCreate()
        _check_server(session)
        _check_folder(session, folder)
    except PySparkException as error:
        raise ConfigError(
            "the server of Spark Connect refuses", address=url.split(";")[0], cause=str(error)[:500]
        ) from error
    return session


def _reach(url: str) -> None:
    """Connect once, so that a server that is not there is told in seconds and in words."""
    import grpc
    from pyspark.errors import PySparkException
    from pyspark.sql.connect.client import DefaultChannelBuilder

    shown = url.split(";")[0]
    try:
        channel = DefaultChannelBuilder(url).toChannel()
    except PySparkException as error:
        raise ConfigError("not an address of Spark Connect; write sc://host:port", address=shown) from error
    try:
        grpc.channel_ready_future(channel).result(timeout=_REACH_S)
    except grpc.FutureTimeoutError as error:
        raise TransientError(
            "no server of Spark Connect answers there; start it, or correct --remote", address=shown, seconds=_REACH_S
        ) from error
    finally:
        channel.close()


def _check_server(session: SparkSession) -> None:
    if session.version != SPARK:
        raise ConfigError("the server has another Spark than it needs", found=session.version, needs=SPARK)
    wanted = delta_wanted()
    extensions = session.conf.get("spark.sql.extensions", "") or ""
    if "DeltaSparkSessionExtension" not in extensions:
        raise ConfigError(f"the server was started without Delta; {_FIX}", needs=f"delta-spark {wanted}")
    (row,) = session.sql("SELECT reflect('io.delta.package', 'VERSION') AS version").collect()
    if row["version"] != wanted:
        raise ConfigError(f"the server has another Delta than it needs; {_FIX}", found=row["version"], needs=wanted)


def _check_folder(session: SparkSession, folder: str) -> None:
    """See whether the server's Python has Lodestream, and finds in the folder what is written here."""
    from pyspark.sql.types import StringType, StructField, StructType

    probe, text = os.path.join(folder, f"check-{random_id()}"), random_id()

    def look(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _piece in pieces:
            found: str | None = None
            seen: str | None = None
            with contextlib.suppress(ImportError):
                from lodestream import version

                found = version.VERSION
            with contextlib.suppress(OSError), open(probe, encoding="utf-8") as file:
                seen = file.read()
            yield pa.record_batch([pa.array([found], pa.string()), pa.array([seen], pa.string())], ["version", "seen"])

    try:
        _put(probe, text)
        schema = StructType([StructField("version", StringType()), StructField("seen", StringType())])
        (row,) = session.range(0, 1, 1, 1).mapInArrow(look, schema).collect()
    finally:
        with contextlib.suppress(OSError):
            os.unlink(probe)
    if row["version"] != VERSION:
        found = row["version"] or "none"
        raise ConfigError(f"the server's Python has another Lodestream; {_FIX}", found=found, needs=VERSION)
    if row["seen"] != text:
        raise ConfigError("the server does not see the lake's folder under the path that it has here", folder=folder)


def _put(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)
