"""`lodestream status`: how each table stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestream.cli.call import Call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lodestream.app import App
    from lodestream.model.table import TableName
    from lodestream.operations.status import TableStatus

_AHEAD_S = 60.0
"""Event times further ahead of the clock than this are told of: a watermark that follows them makes others late."""
_FATES = ("input", "output", "quarantine", "late", "duplicate", "dropped")


def status(call: Call) -> None:
    """Show version, rows, batch, watermark, freshness and row accounting of every table, and how far sinks are.

    Reads the lake only; it works while `run` is at work and when the declarations have mistakes.
    """
    from lodestream.app import now_us
    from lodestream.cli.output import count, size, span, when_us
    from lodestream.lake.layout import QUARANTINE_SUFFIX
    from lodestream.model.table import LAYERS
    from lodestream.operations.status import read_status

    app = call.app()
    pending, mistakes = _pending(app)
    names = {*app.project.tables, *(one for one in app.query.tables() if not one.name.endswith(QUARANTINE_SUFFIX))}
    order: dict[str, int] = {layer: index for index, layer in enumerate(LAYERS)}
    tables = read_status(
        app.disk, app.lake, sorted(names, key=lambda n: (order[n.layer], n.name)), now_us=now_us(), pending=pending,
        declared=app.project.tables,
    )  # fmt: skip
    if call.json:
        call.emit(
            {"project": app.project.name, "lake": app.lake, "mistakes": mistakes,
             "tables": [
                 {**one.to_json(), "watermark": when_us(one.watermark_us), "max_event_time": when_us(one.max_event_us),
                  "last_commit": when_us(one.last_commit_us)}
                 for one in tables
             ]}
        )  # fmt: skip
        return
    call.print(f"{app.project.name}  {app.lake}")
    columns = ["table", "rows", "version", "batch", "fresh", "committed", "watermark", *_FATES, ""]
    rows = []
    for one in tables:
        aside = "not in the lake" if not one.exists else (one.pending or "")
        if one.planned > one.batch:
            aside = f"{aside} batch {one.planned} under way".strip()
        rows.append(
            (
                one.table, count(one.rows), one.version if one.exists else None, one.batch if one.exists else None,
                span(one.freshness_s), span(one.age_s), (when_us(one.watermark_us) or "–")[:19],
                *(count(one.counts.get(fate)) if one.counts.get(fate) else "·" for fate in _FATES),
                "ERROR" if one.error else aside,
            )
        )  # fmt: skip
    call.table(columns, rows, right={"rows", "version", "batch", "fresh", "committed", *_FATES})
    sinks = [(s.sink, s.version, s.behind, count(s.messages), "under way" if s.under_way is not None else "")
             for one in tables for s in one.sinks]  # fmt: skip
    if sinks:
        call.print("")
        call.table(["sink", "published", "behind", "messages", ""], sinks, right={"published", "behind", "messages"})
    asking = [(one.table, *(count(n) for n in (a.waiting, a.questions, a.answers, a.refusals, a.tries, a.from_ledger,
               a.timeouts)), a.trouble or "") for one in tables if (a := one.asking) is not None]  # fmt: skip
    if asking:
        columns = ["asks", "waiting", "questions", "answers", "refusals", "tries", "from ledger", "timeouts"]
        call.print("")
        call.table([*columns, ""], asking, right=set(columns[1:]))
    held = [(one.table, size(one.state_bytes), size(one.state_spilled_bytes) if one.state_spilled_bytes else "·",
             ", ".join(f"{count(n)} {kind}" for kind, n in one.state_rows.items()))
            for one in tables if one.state_rows]  # fmt: skip
    if held:
        call.print("")
        call.table(["state of", "memory", "spilled", "holds"], held, right={"memory", "spilled"})
    _show_upkeep(call, tables)
    for one in tables:
        for told in _troubles(one):
            call.print(f"{one.table}: {told}")
    if mistakes:
        call.say(f"note: mistakes in the declarations: {mistakes}; `lodestream plan` lists them")
    elif pending:
        call.say("next: lodestream plan")


def _show_upkeep(call: Call, tables: list[TableStatus]) -> None:
    """How each declared table is maintained, and what waits."""
    from lodestream.cli.output import count, size, span

    upkeep = [
        (one.table, count(one.files), count(m.small_files), "–" if m.checkpoint is None else m.checkpoint,
         count(m.log_entries), "for ever" if m.retention_s is None else span(m.retention_s),
         size(m.target_file_size) if m.compact else "off", ", ".join(m.z_order) or "–",
         span(m.deleted_file_retention_s), "for ever" if m.quarantine_retention_s is None else
         span(m.quarantine_retention_s))
        for one in tables if (m := one.maintenance) is not None
    ]  # fmt: skip
    if upkeep:
        columns = [
            "upkeep of",
            "files",
            "small",
            "checkpoint",
            "log",
            "rows kept",
            "file size",
            "z-order",
            "vacuum after",
            "set aside",
        ]
        call.print("")
        call.table(columns, upkeep, right=set(columns[1:7]))


def _troubles(one: TableStatus) -> Iterator[str]:
    from lodestream.cli.output import span, when_us

    if one.freshness_s is not None and one.freshness_s < -_AHEAD_S:
        newest, ahead = when_us(one.max_event_us), span(-one.freshness_s)
        yield (
            f"the newest event time, {newest}, is {ahead} ahead of this machine's clock;"
            " rows that lie further behind it than the delay are late"
        )
    if one.error:
        yield one.error


def _pending(app: App) -> tuple[dict[TableName, str], int]:
    """The kind of change that waits for each table, and the number of mistakes in the declarations."""
    from lodestream.errors import LodestreamError
    from lodestream.project.mistakes import ProjectError

    try:
        return {change.table: change.kind for change in app.changes()}, 0
    except ProjectError as error:
        return {}, len(error.diagnostics)
    except LodestreamError:
        return {}, 1  # a damaged table; its own line says so
