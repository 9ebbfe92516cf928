"""The derive and expect stages: computed columns and rules, one query a batch, and reasons for the rows that fail."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.frames import quoted, select
from lodestream.engines.embedded.passing import Pass, mask_of
from lodestream.errors import ConfigError
from lodestream.model.arrow import to_arrow_type
from lodestream.model.steps import Derive, Expect, Rule


def derive_and_expect(passing: Pass, derive: Derive | None, expect: Expect | None) -> None:
    """Compute derived columns from the input columns, and hold each row to the rules, all in one query.

    Raises:
        ConfigError: a row does not meet a rule with `else: fail`, or drift has made a column of the input wider than
            the expressions were typed for.
    """
    columns = derive.columns if derive else ()
    rules = expect.rules if expect else ()
    derived = {name for name, _ in columns}
    needed = {c for _, e in columns for c in e.columns} | {c for r in rules for c in r.condition.columns}
    rows = passing.settle()
    inner = [(c, quoted(c)) for c in rows.column_names if c in needed and c not in derived]
    inner += [(name, e.duckdb) for name, e in columns]
    flags: list[tuple[str, str, str]] = []  # (reason, effect, true where it holds)
    for i, (name, e) in enumerate(columns):
        if e.error is not None:
            inner.append((f"_e{i}", f"coalesce({e.error}, false)"))
            flags.append((f"derive:{name}:error", "quarantine", f"_e{i}"))
    for rule in rules:
        flags += _broken(rule)
    stopping = [sql for _, effect, sql in flags if effect != "warn"]
    warnings = [(reason, sql) for reason, effect, sql in flags if effect == "warn"]
    items = [(name, quoted(name)) for name, _ in columns]
    items.append(("_bad", " OR ".join(f"({sql})" for sql in stopping) or "false"))
    items += [(f"_w{i}", sql) for i, (_, sql) in enumerate(warnings)]
    source = rows.select([c for c in rows.column_names if c in needed or c == "_position"])
    result = select(passing.connection, source, items, inner)
    bad = mask_of(result.column("_bad"))
    for i, (reason, _) in enumerate(warnings):
        passing.out.count(f"rule:{reason.split(':')[1]}", int(pc.sum(result.column(f"_w{i}")).as_py() or 0))
    for name, e in columns:
        passing.put(name, _typed(name, result.column(name), to_arrow_type(e.type)))
    if bad.any():
        hits = [(f"f{i}", sql) for i, (_, _, sql) in enumerate(flags)]
        detail = select(passing.connection, source.filter(pa.array(bad)), hits, inner)
        _set_aside(passing, bad, detail, [(reason, effect) for reason, effect, _ in flags])


def _typed(name: str, values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        return values.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(
            "a column of the table above is wider than this one was made for; rebuild this one: lodestream plan",
            derived=name, type=str(kind), now=str(values.type),
        ) from error  # fmt: skip


def _set_aside(passing: Pass, bad: np.ndarray, detail: pa.Table, flags: list[tuple[str, str]]) -> None:
    matrix = np.column_stack([mask_of(detail.column(f"f{i}")) for i in range(len(flags))])
    for i, (reason, effect) in enumerate(flags):
        hits = int(matrix[:, i].sum())
        if hits and effect == "fail":
            raise ConfigError(
                "an expectation with `else: fail` is not met; mend the rows or the rule",
                rule=reason, rows=hits, batch=passing.batch.batch,
            )  # fmt: skip
        if reason.startswith(("expect:", "drop:")) and effect != "warn":
            passing.out.count(f"rule:{reason.split(':')[1]}", hits)
    quarantines = np.array([effect == "quarantine" for _, effect in flags])
    codes = np.array([reason for reason, _ in flags], dtype=object)
    counted = np.array([effect != "warn" for _, effect in flags])
    kept: np.ndarray = matrix[:, quarantines].sum(axis=1) > 0
    # Reasons of quarantine come first, so that a row's main reason is why it is kept.
    order = np.argsort(~quarantines, kind="stable")
    reasons = [list(codes[order][(row & counted)[order]]) for row in matrix]
    indexes = passing.drop(bad)
    for kind, chosen in (("quarantine", kept), ("dropped", ~kept)):
        if chosen.any():
            passing.record(indexes[chosen], kind, [r for r, c in zip(reasons, chosen, strict=True) if c])


def _broken(rule: Rule) -> list[tuple[str, str, str]]:
    """(reason, effect, DuckDB boolean) for a rule that is not met, and for one that errs."""
    condition, prefix = rule.condition, "drop" if rule.otherwise == "drop" else "expect"
    broken = f"NOT coalesce({condition.duckdb}, false)"
    if condition.error is None:
        return [(f"{prefix}:{rule.name}", rule.otherwise, broken)]
    error = f"coalesce({condition.error}, false)"
    return [
        (f"{prefix}:{rule.name}:error", rule.otherwise, error),
        (f"{prefix}:{rule.name}", rule.otherwise, f"({broken} AND NOT {error})"),
    ]
