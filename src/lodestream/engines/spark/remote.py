"""Flows on a server of Spark Connect: sources are planned, rows computed and batches committed over there.

Everything that a query calls runs in the server's own Python, which needs Lodestream and the lake under the same path.
This process starts the queries, watches them, and reads what the commits say.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lodestream.engines.embedded.surroundings import Committed, Surroundings, untold
from lodestream.engines.spark.failures import in_our_words
from lodestream.engines.spark.flow import Listener, SparkFlow
from lodestream.engines.spark.session import SPARK, delta_wanted, is_remote, prepare
from lodestream.engines.spark.source import Recipe
from lodestream.errors import ConfigError, MissingDriverError, TransientError
from lodestream.lake.disk import random_id
from lodestream.model.steps import FlowPlan
from lodestream.ports.plugins import make_enricher
from lodestream.version import VERSION

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_REACH_S = 10.0
_TRIES = 3
"""How often a query is started, which takes a Python that the server starts and waits ten seconds for."""
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
    return prepare(session)


def flow_class(session: object) -> type[SparkFlow]:
    """What runs a flow in that session."""
    return RemoteFlow if is_remote(session) else SparkFlow


class RemoteFlow(SparkFlow):
    """A flow whose batches run at the server. It has a session of its own, for settings of one are not for others."""

    def __init__(self, plan: FlowPlan, around: Surroundings, checkpoints: str, session: Any, *more: Any) -> None:
        super().__init__(plan, around, checkpoints, session.cloneSession(), *more)
        self._told = -1

    def start(self, listener: Listener) -> None:
        """Start the query; `listener` hears of each batch when `settle` or `check` sees its commit.

        Raises:
            LodestreamError: the server cannot start it.
        """
        from pyspark.errors import PySparkException

        self._told = self.table.refresh().version
        for left in reversed(range(_TRIES)):
            try:
                super().start(listener)
                return
            except PySparkException as error:
                told = in_our_words(str(error), str(self.name))
                if not left or not isinstance(told, TransientError):
                    raise told from error

    def stop(self) -> None:
        """End the query and its session at the server. Twice is harmless."""
        from pyspark.errors import PySparkException

        client: Any = self._session.client  # a session that was cloned has not all that its own `stop` needs
        if not client.is_closed:
            with contextlib.suppress(PySparkException):  # the server may be gone, or another thread be first
                super().stop()
                client.release_session()
            client.close()

    def check(self) -> None:
        """Tell of new commits, and raise what ended the query, if it failed."""
        version = self.table.refresh().version
        for commit in self.table.commits(self._told, version):
            info = commit.info
            if info.get("query") == self.checkpoint.query and "batch" in info:
                self.listener(Committed(info["batch"], info["kind"], commit.version, info["counts"]))
        self._told = version
        super().check()

    @property
    def _batches(self) -> ServerBatches:
        around = replace(self._around, handover=None, enricher=make_enricher, notice=untold, budget=None)
        recipe = "" if self._recipe is None else self._recipe.to_text()
        return ServerBatches(self.plan, around, self._checkpoints, recipe, self._poll_s)


@dataclass
class ServerBatches:
    """What a query calls with each micro-batch: the flow, opened at the server with the first one."""

    plan: FlowPlan
    around: Surroundings
    checkpoints: str
    recipe: str
    poll_s: float
    _flow: SparkFlow | None = field(default=None, repr=False)

    def __call__(self, stream: DataFrame, number: int) -> None:
        """Run one batch."""
        if self._flow is None:
            flow = SparkFlow(
                self.plan, self.around, self.checkpoints, stream.sparkSession, self._recipe, _no_flow, self.poll_s
            )
            flow.open()
            flow.follow()
            self._flow = flow
        self._flow.run_batch(stream, number)

    def _recipe(self, *_given: object) -> Recipe:
        return Recipe.from_text(self.recipe)


def _no_flow(name: object) -> Any:
    """Stands where the embedded engine would end a batch, which it does before a query starts."""
    raise TransientError("another engine has begun a batch of this table", table=str(name))


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
