"""What ended a query on Spark, in our words."""

from __future__ import annotations

import re
from typing import Any

from lodestream import errors
from lodestream.errors import ConfigError, CorruptionError, DataLossRefused, LodestreamError, TransientError

_RAISED = re.compile(r"^lodestream\.errors\.(\w+): (.*)$", re.MULTILINE)


def in_our_words(text: str, table: str) -> LodestreamError:
    """The error of a table's query, told from what Spark says of it."""
    short = text.splitlines()[0][:500] if text else "no reason given"
    if (raised := raised_by_worker(text)) is not None:
        return raised
    if "No module named 'lodestream" in text or "Cannot run program" in text:
        return ConfigError("a worker of Spark has no Lodestream, or another Python; install it there as it is here",
            table=table, cause=_named(text, short),
        )  # fmt: skip
    if "failed to connect back" in text or "CANNOT_OPEN_SOCKET" in text:
        return TransientError("a Python worker of Spark did not start in time", table=table)
    if "state" in text and ("CANNOT_LOAD_STATE_STORE" in text or "does not exist" in text):
        return CorruptionError("Spark's state is lost", table=table, cause=short)
    if "DELTA_SCHEMA_CHANGED" in text:
        return TransientError("the table above has other columns now, with which the query begins anew", table=table)
    if "DELTA_SOURCE_TABLE_IGNORE_CHANGES" in text or "DELTA_SOURCE_IGNORE_DELETE" in text:
        return DataLossRefused("upstream rows were taken away or changed", table=table, cause=short)
    return LodestreamError("the query on Spark failed", table=table, cause=short)


def _named(text: str, short: str) -> str:
    """The line that names what is missing."""
    wanted = ("No module named", "Cannot run program")
    return next((line.strip()[:500] for line in text.splitlines() if any(name in line for name in wanted)), short)


def raised_by_worker(text: str) -> LodestreamError | None:
    """The error that our code raised in a worker, told from what Spark says of it; None when it was not ours."""
    found = _RAISED.search(text)
    kind = getattr(errors, found[1], None) if found is not None else None
    if found is None or not isinstance(kind, type) or not issubclass(kind, LodestreamError):
        return None
    return kind(found[2])


def root_cause(query: object) -> str:
    """What Java says at the very end of the causes of a query's failure."""
    failed: Any = getattr(query, "_jsq", None)
    if failed is None or failed.exception().isEmpty():
        return ""
    cause = failed.exception().get()
    while cause.getCause() is not None:
        cause = cause.getCause()
    return str(cause.toString())
