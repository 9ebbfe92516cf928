"""Checks that hold between the blocks of a table and between tables, before any column is looked at."""

from __future__ import annotations

from lodestream.model.project import Project
from lodestream.model.table import LAYERS, WINDOW_END, WINDOW_START, WINDOW_TIME, Session, Table, TableName
from lodestream.project.graph import Edge, edges, ordered
from lodestream.project.inputs import query_inputs
from lodestream.project.mistakes import Mistakes, nearest


def check_project(project: Project, mistakes: Mistakes) -> frozenset[TableName]:
    """Note unknown tables, circles, edges against the layers; the tables whose columns cannot be known for it."""
    reads = {name: edges(table, query_inputs) for name, table in project.tables.items()}
    lost: set[TableName] = set()
    for name, table in project.tables.items():
        _check_table(project, table, mistakes)
        lost |= {name for edge in reads[name] if not _check_edge(project, edge, mistakes)}
    allowed = {name: [edge for edge in found if not _climbs(edge)] for name, found in reads.items()}
    for circle in ordered(allowed)[1]:
        first = min(circle, key=lambda edge: edge.reader)
        start = circle.index(first)
        names = [edge.reader for edge in (*circle[start:], *circle[:start])]
        trail = " reads ".join(str(name) for name in (*names, names[0]))
        mistakes.add(project.place(first.reader, *first.path), "D209", "tables in a circle", cycle=trail)
        lost.update(names)
    return frozenset(lost)


def _check_edge(project: Project, edge: Edge, mistakes: Mistakes) -> bool:
    place = project.place(edge.reader, *edge.path)
    table = project.tables.get(edge.table)
    if table is None:
        if edge.path == ("sql",):  # the compiler of queries knows the spot inside the text
            return True
        near = nearest(str(edge.table), [str(name) for name in project.tables if name != edge.reader])
        mistakes.add(place, "D201", "no such table", table=edge.table, nearest=near)
        return False
    if _climbs(edge):
        mistakes.add(place, "D208", f"{edge.reader.layer} reads from {edge.table.layer}", table=edge.table)
    if "*" in project.unsure.get(edge.table, ()):
        return True
    if edge.path == ("from",) and table.window is not None:
        return _check_chain(project, edge, table, mistakes)
    changing = table.window is not None or table.changes is not None or table.sql is not None
    if edge.path in (("from",), ("join", "from")) and changing:
        kind = f"windows with emit: {table.emit}" if table.window is not None else "a batch table"
        kind = "a table kept up to date from changes" if table.changes is not None else kind
        fix = f"use sql: select … from {edge.table}"
        mistakes.add(place, "D210", f"{kind} cannot be streamed from", table=edge.table, fix=fix)
        return False
    return True


def _check_chain(project: Project, edge: Edge, above: Table, mistakes: Mistakes) -> bool:
    """A table that reads windows as a stream: only closed ones, and only to make windows of them."""
    reader, place = project.tables[edge.reader], project.place(edge.reader, *edge.path)
    query = f"use sql: select … from {edge.table}" + (f", or stream({above.from_})" if above.from_ is not None else "")
    if above.emit != "final":
        fix = f"write emit: final there, so that a window comes once and does not change; or {query}"
        mistakes.add(place, "D210", "windows with emit: updates cannot be streamed from", table=edge.table, fix=fix)
        return False
    if above.late == "update":
        fix = f"write late: quarantine there, so that a closed window does not change; or {query}"
        mistakes.add(place, "D210", "windows with late: update cannot be streamed from", table=edge.table, fix=fix)
        return False
    if reader.window is None:
        fix = f"add window:, measures:; or {query}"
        mistakes.add(place, "D210", "only windows can be made of a stream of windows", table=edge.table, fix=fix)
        return False
    fix = "remove it: windows of windows take event time and watermark from the table above, and each comes once"
    for key, given in (("event_time", reader.event_time), ("dedup", reader.dedup), ("python", reader.python)):
        if given is not None:
            mistakes.add(project.place(edge.reader, key), "D207", f"{key} on windows of windows", key=key, fix=fix)
    for named in reader.derive:
        if named.name in (WINDOW_TIME, WINDOW_START, WINDOW_END):
            at = project.place(edge.reader, "derive", named.name)
            mistakes.add(at, "D111", "this name is taken by the windows above", column=named.name)
    return True


def _climbs(edge: Edge) -> bool:
    return LAYERS.index(edge.table.layer) > LAYERS.index(edge.reader.layer)


def _check_table(project: Project, table: Table, mistakes: Mistakes) -> None:
    name = table.name
    written = {path[0] for (owner, path) in project.locations if owner == name and path}
    above = project.tables.get(table.from_) if table.from_ is not None else None
    timed = table.event_time is not None or "event_time" in written or (above is not None and above.window is not None)
    if table.emit == "final" and table.window is not None and not timed:
        mistakes.add(project.place(name, "emit"), "P201", "emit: final without event_time")
    elif table.window is not None and not timed:
        fix = "add event_time: {column, delay}: it says which window a row belongs to"
        mistakes.add(project.place(name, "window"), "D105", "window without event_time", key="event_time", fix=fix)
    if table.join is not None and not timed:
        fix = "add event_time: {column, delay}: rows are joined by their distance in event time"
        mistakes.add(project.place(name, "join"), "D105", "join without event_time", key="event_time", fix=fix)
    if table.late == "update" and isinstance(table.window, Session):
        fix = "keep late: quarantine: a late row could join sessions that are closed for good"
        mistakes.add(project.place(name, "late"), "D207", "late: update with sessions", key="late", fix=fix)
    if table.late == "update" and table.dedup is not None:
        fix = "put dedup into the table above: it sets late rows aside before windows see them"
        mistakes.add(project.place(name, "late"), "D207", "late: update with dedup", key="late", fix=fix)
    if table.dedup is not None and not timed:
        mistakes.add(project.place(name, "dedup"), "P202", "dedup without event_time")
    if table.dedup is not None and table.event_time is not None:
        span = table.event_time.delay_us if table.dedup.within_us is None else table.dedup.within_us
        if span == 0:
            fix = "give dedup a within:, or event_time a delay above zero"
            mistakes.add(project.place(name, "dedup"), "D107", "dedup within no time at all", fix=fix)
