"""Which keys a table file may have, and which of them go together."""

from __future__ import annotations

from lodestream.project.fields import Fields

EVERY = ("comment", "engine", "maintain", "partition_by", "retention", "sink")
ROWS = ("derive", "expect", "event_time", "dedup", "enrich")
INGEST = (*EVERY, "source", "format", "columns", "keep_raw", "drift", *ROWS, "select")
STREAM = (*EVERY, "from", "python", "columns", *ROWS, "join", "select", "skip_silver")
_WINDOW_ONLY = ("group_by", "measures", "emit", "late", "completeness")
WINDOWED = (*EVERY, "from", "python", "columns", *ROWS, "window", *_WINDOW_ONLY, "skip_silver")
CHANGED = (
    "comment", "engine", "maintain", "sink", "from", "python", "columns", "derive", "expect", "event_time", "enrich",
    "select", "changes", "skip_silver",
)  # fmt: skip
QUERY = ("comment", "engine", "maintain", "partition_by", "sink", "sql", "schedule", "skip_silver")
KEYS = tuple(dict.fromkeys((*EVERY, *INGEST, *STREAM, *WINDOWED, *CHANGED, *QUERY)))
"""Every key of a table file."""

INPUTS = ("source", "from", "sql")
_KINDS = {"source": ("a source", INGEST), "from": ("an upstream table", STREAM), "sql": ("a query", QUERY)}
_ONE_OF_TWO = "keep one of window: and changes:"
_NOT_WITH_CHANGES = {
    "dedup": "remove it: sequence_by decides which change of a key stands, and a repeat changes nothing",
    "partition_by": "remove it: rows move with every change",
    "retention": "remove it: a row stays until a change replaces or deletes it",
}


def check_keys(fields: Fields) -> bool:
    """Note keys that do not go together; whether it is clear what kind of table this is."""
    mistakes = fields.mistakes
    inputs = [key for key in INPUTS if key in fields]
    if len(inputs) > 1:
        for key in inputs[1:]:
            mistakes.add(fields.place(key), "D206", "two inputs", first=inputs[0], second=key)
        return False
    if not inputs:
        if fields.meant.isdisjoint(INPUTS):
            mistakes.add(fields.node.place, "D205", "no input")
        return False
    what, allowed = _KINDS[inputs[0]]
    if inputs[0] == "from" and "window" in fields:
        what, allowed = "windows", WINDOWED
    elif inputs[0] == "from" and "changes" in fields:
        what, allowed = "changes", CHANGED
    for key in [key for key in fields.nodes if key not in allowed]:
        if inputs[0] == "from" and key == "join":
            fix = "join in a table of its own, and make windows of that one"
            mistakes.add(fields.place(key), "D207", "a join in a table with windows", key=key, fix=fix)
            del fields.nodes[key]
            continue
        if inputs[0] == "from" and key in _WINDOW_ONLY:
            fix = "add window: {every: …}, or remove it"
            mistakes.add(fields.place(key), "D207", "key without a window", key=key, fix=fix)
        elif key in _NOT_WITH_CHANGES and what == "changes":
            mistakes.add(fields.place(key), "D207", "key beside changes", key=key, fix=_NOT_WITH_CHANGES[key])
        elif key == "changes":
            fix = "move it to a table that reads this one: from: stream(…)" if what != "windows" else _ONE_OF_TWO
            mistakes.add(fields.place(key), "D207", f"key has no meaning for a table with {what}", key=key, fix=fix)
        else:
            mistakes.add(fields.place(key), "D207", f"key has no meaning for a table with {what}", key=key)
        del fields.nodes[key]
    if "columns" in fields and inputs[0] == "from" and "python" not in fields:
        fix = "remove it: columns come from the table above; use derive: and select: to change them"
        mistakes.add(fields.place("columns"), "D207", "columns without a python step", key="columns", fix=fix)
        del fields.nodes["columns"]
    if "python" in fields and "columns" not in fields:
        fix = "declare the columns that the function returns"
        mistakes.add(fields.place("python"), "D105", "missing key in the table", key="columns", fix=fix)
    if "window" in fields and "measures" not in fields:
        mistakes.add(fields.place("window"), "D105", "missing key in the table", key="measures")
    return True
