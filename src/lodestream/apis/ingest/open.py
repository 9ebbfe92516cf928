"""Opens the streams of a project for HTTP."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping

from lodestream.apis.gate import Gate
from lodestream.apis.ingest.routes import IngestApi
from lodestream.apis.ingest.stream import Stream, open_stream
from lodestream.apis.routing import Part
from lodestream.drivers.record_log.disk import LocalLogDisk
from lodestream.errors import ConfigError, ConflictError
from lodestream.lake.disk import random_id
from lodestream.model.steps import FlowPlan, ReadSource
from lodestream.model.table import TableName
from lodestream.ports.plugins import Resolve
from lodestream.ports.registry import SchemaRegistry
from lodestream.project.serving import IngestSettings

_TRIES = 20
_PAUSE_S = 0.1


def http_flows(flows: Mapping[TableName, FlowPlan]) -> dict[str, FlowPlan]:
    """The flows that read a stream, by stream. Raises ConfigError when two read the same."""
    found: dict[str, FlowPlan] = {}
    for plan in flows.values():
        first = plan.steps[0]
        if isinstance(first, ReadSource) and first.source.name == "http":
            stream = str(first.source.settings["stream"])
            if stream in found:
                raise ConfigError(
                    "a stream is read by one table; let the other read that table, or name another stream",
                    stream=stream, tables=f"{found[stream].table.name}, {plan.table.name}",
                )  # fmt: skip
            found[stream] = plan
    return found


def open_ingest(
    flows: Mapping[TableName, FlowPlan], root: str, lake: str, gate: Gate, clock: Callable[[], int],
    resolve: Resolve, registry: Callable[[str], SchemaRegistry],
) -> Part:  # fmt: skip
    """What takes records in, its streams opened; none when no table has the source `http`.

    Raises:
        ConfigError: two tables share a stream.
        ConflictError: another process serves a stream.
    """
    found = http_flows(flows)
    bounds = gate.settings.ingest
    opened: list[Stream] = []
    try:
        opened.extend(_opened(plan, root, lake, bounds, clock, resolve, registry) for plan in found.values())
    except BaseException:
        for stream in opened:
            stream.close()
        raise
    return IngestApi(opened, gate, bounds, clock).part()


def _opened(
    plan: FlowPlan, root: str, lake: str, bounds: IngestSettings, clock: Callable[[], int], resolve: Resolve,
    registry: Callable[[str], SchemaRegistry],
) -> Stream:  # fmt: skip
    """Open one stream; a reader that brings its log into order holds it for a moment only."""
    for _ in range(_TRIES):
        with contextlib.suppress(ConflictError):
            return open_stream(plan, root, lake, bounds, LocalLogDisk(), clock, random_id, resolve, registry)
        time.sleep(_PAUSE_S)
    return open_stream(plan, root, lake, bounds, LocalLogDisk(), clock, random_id, resolve, registry)
