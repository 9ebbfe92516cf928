"""Rows that do not reach the table: their quarantine form, and back to input rows for a replay."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.leaving import Erased
from lodestream.errors import ConflictError, LodestreamError, TransientError
from lodestream.lake.actions import ERASE, RemoveFile
from lodestream.lake.crash import point
from lodestream.lake.rewrite import rewrite
from lodestream.lake.table import DeltaTable, Staged
from lodestream.model.arrow import to_arrow
from lodestream.model.batch import BatchPlan
from lodestream.model.types import Column, DataType, Schema, parse_type

ERASED = "erased"
"""Kind and reason of an entry that says of a position that it was erased, and nothing else."""
_MICROS = "us"  # ending of a time that is written as microseconds since 1970
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_1_US, _YEAR_10000_US = -62_135_596_800_000_000, 253_402_300_800_000_000

QUARANTINE = Schema(
    (
        Column("_source", parse_type("string"), comment="unit of the source the row came from"),
        Column("_position", parse_type("bigint"), comment="position in that unit"),
        Column("_batch", parse_type("bigint"), comment="batch of the flow that set the row aside"),
        Column("_time", parse_type("timestamp"), comment="when"),
        Column(
            "kind",
            parse_type("string"),
            comment="quarantine, late, late_window, duplicate, dropped, erased or resolved",
        ),
        Column("reasons", parse_type("array<string>"), comment="every reason, most important first"),
        Column("rule", parse_type("string"), comment="the first rule broken, if a rule was"),
        Column("detail", parse_type("string"), comment="more, as JSON"),
        Column("row", parse_type("string"), comment="the flow's input row as JSON; empty for duplicate and dropped"),
        Column("raw", parse_type("binary"), comment="the record as it arrived, when it did not decode"),
    )
)
QUARANTINE_ARROW = to_arrow(QUARANTINE)


def rejected(
    rows: pa.Table,
    kind: str,
    reasons: pa.Array | list[list[str]],
    *,
    batch: int,
    clock_us: int,
    keep_row: bool,
    details: list[str | None] | None = None,
) -> pa.Table:
    """Quarantine rows for the input rows `rows`.

    Args:
        rows: n input rows with `_source` and `_position`.
        kind: their disposition.
        reasons: n lists of reason codes.
        keep_row: whether the row itself is kept, so that it can be shown and replayed.
        details: n JSON texts, if there is more to say.
    """
    count = len(rows)
    listed = pa.array(reasons, pa.list_(pa.string()))
    return pa.table(
        [
            rows.column("_source").cast(pa.string()),
            rows.column("_position"),
            pa.array([batch], pa.int64()).take(pa.array([0] * count, pa.int32())),
            pa.array([clock_us] * count, pa.timestamp("us", tz="UTC")),
            pa.array([kind] * count, pa.string()),
            listed,
            pa.array([_rule(codes) for codes in listed.to_pylist()], pa.string()),
            pa.array(details or [None] * count, pa.string()),
            pa.array(encode_rows(rows) if keep_row else [None] * count, pa.string()),
            pa.nulls(count, pa.binary()),
        ],
        schema=QUARANTINE_ARROW,
    )


def rejected_raw(rejects: pa.Table, *, batch: int, clock_us: int) -> pa.Table:
    """Quarantine rows for records that did not decode (`Decoded.rejects`)."""
    count = len(rejects)
    reasons = rejects.column("_reasons").combine_chunks()
    return pa.table(
        [
            rejects.column("_source").cast(pa.string()),
            rejects.column("_position"),
            pa.array([batch] * count, pa.int64()),
            pa.array([clock_us] * count, pa.timestamp("us", tz="UTC")),
            pa.array(["quarantine"] * count, pa.string()),
            reasons,
            pa.array([_rule(codes) for codes in reasons.to_pylist()], pa.string()),
            rejects.column("_detail"),
            pa.nulls(count, pa.string()),
            rejects.column("_raw"),
        ],
        schema=QUARANTINE_ARROW,
    )


def noted_as_erased(rows: pa.Table, batch: BatchPlan) -> pa.Table:
    """Quarantine rows that say of the positions of `rows` that they were erased, and no more."""
    places, reasons = rows.select(["_source", "_position"]), [[ERASED]] * len(rows)
    return rejected(places, ERASED, reasons, batch=batch.batch, clock_us=batch.clock_us, keep_row=False)


def _rule(codes: list[str]) -> str | None:
    named = [code.split(":")[1] for code in codes if code.startswith(("expect:", "drop:"))]
    return named[0] if named else None


def encode_rows(rows: pa.Table) -> list[str]:
    """Each row as one JSON object; `decode_rows` gives the same values back."""
    for i, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type) and _beyond_calendar(rows.column(i)):
            micros = rows.column(i).cast(pa.int64()).cast(pa.string())
            rows = rows.set_column(i, field.name, pc.binary_join_element_wise(micros, _MICROS, ""))
    return [json.dumps(row, default=_encode, ensure_ascii=False, allow_nan=True) for row in rows.to_pylist()]


def json_form(value: Any) -> Any:
    """One value as `encode_rows` writes it."""
    return json.loads(json.dumps(value, default=_encode, allow_nan=True))


def _beyond_calendar(column: pa.ChunkedArray) -> bool:
    """Whether some time lies outside the years 1 to 9999, which Python cannot hold."""
    span = pc.min_max(column.cast(pa.int64())).as_py()
    return span["min"] is not None and (span["min"] < _YEAR_1_US or span["max"] >= _YEAR_10000_US)


def _encode(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"no JSON form: {type(value).__name__}")


def decode_rows(texts: list[str], schema: Schema) -> pa.Table:
    """Rows of `encode_rows` as a table of `schema`; columns that a row does not have are NULL.

    A column that was renamed is found by its former name in rows from before it.
    """
    decoded = [json.loads(text) for text in texts]
    columns = [pa.array([_decode(row.get(c.name, row.get(c.renamed_from)), c.type) for row in decoded], f.type)
               for c, f in zip(schema, to_arrow(schema), strict=True)]  # fmt: skip
    return pa.table(columns, schema=to_arrow(schema, nullable=True))


def _decode(value: Any, kind: DataType) -> Any:
    if value is None:
        return None
    match kind.name:
        case "timestamp":
            if value.endswith(_MICROS):
                return int(value.removesuffix(_MICROS))
            return (datetime.fromisoformat(value) - _EPOCH) // timedelta(microseconds=1)
        case "date":
            return date.fromisoformat(value)
        case "decimal":
            return Decimal(value)
        case "binary":
            return base64.b64decode(value)
        case "array":
            assert kind.element
            return [_decode(item, kind.element) for item in value]
        case "struct":
            return {f.name: _decode(value.get(f.name), f.type) for f in kind.fields}
        case "map":
            assert kind.key
            assert kind.element
            return [(_decode(k, kind.key), _decode(v, kind.element)) for k, v in value]
        case _:
            return value


def commit_rejects(
    table: DeltaTable, application: str, batch: BatchPlan, attempt: str, rejects: Sequence[pa.Table],
    erased: Erased | None = None,
) -> None:  # fmt: skip
    """Commit a batch's quarantine rows, unless another process that runs the same plan was first.

    Of an erasing batch, the rows that leave too.

    Raises:
        ConflictError: the flow has a rival, and this batch's rows are not there.
        TransientError: the disk is full; nothing is left of the files.
    """
    staged = table.stage(pa.concat_tables([QUARANTINE_ARROW.empty_table(), *rejects]), name=f"{batch.batch}-{attempt}")
    removes: Sequence[RemoveFile] = ()
    if erased is not None:
        kept, removes = rewrite(table, erased.aside.among, ["_source", "_position"], f"erased-{batch.batch}-{attempt}")
        staged = Staged((*staged.adds, *kept), staged.rows)
    point("quarantine.staged")
    info = {"batch": batch.batch, "attempt": attempt}
    try:
        table.commit(
            adds=staged.adds, removes=removes, txn=(application, batch.batch), info=info, clock_us=batch.clock_us,
            operation="WRITE" if erased is None else ERASE,
        )  # fmt: skip
    except TransientError:
        with contextlib.suppress(LodestreamError):
            table.discard(staged.adds)
        raise
    except ConflictError:
        table.discard(staged.adds)
        # Another process runs the same plan and was first; its rows are ours, for the plan decides them.
        if table.refresh().txns.get(application, 0) < batch.batch:
            raise
