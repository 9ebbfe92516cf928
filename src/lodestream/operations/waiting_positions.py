"""Positions of the rows that wait in a flow's state, read from its files with code that the engine does not use."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pyarrow as pa

from lodestream.errors import CorruptionError

_HEAD = b"LODESTATE1\n"


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def waiting_positions(folder: str, name: str, read: Callable[[str], bytes] = _content) -> pa.Table:
    """`_source` and `_position` of the rows that wait after the state `name`, in no order.

    Args:
        folder: of the state files of a flow's epoch.
        name: of the link that the flow's last commit names.
        read: gives the content of a file.

    Raises:
        CorruptionError: a link is missing, or is no state.
    """
    came: list[pa.Table] = []
    gone: set[int] = set()
    wanted: str | None = name
    while wanted is not None:
        header, sections = _link(os.path.join(folder, wanted), read)
        if "waiting" in sections:
            came.append(_read(sections["waiting"]).select(["_source", "_position", "_number"]))
        if "left" in sections:
            gone.update(_read(sections["left"]).column("_number").to_pylist())
        wanted = header["previous"]
    if not came:
        return pa.table({"_source": pa.array([], pa.string()), "_position": pa.array([], pa.int64())})
    rows = pa.concat_tables(came, promote_options="permissive")
    stays = pa.array([number not in gone for number in rows.column("_number").to_pylist()], pa.bool_())
    return rows.filter(stays).select(["_source", "_position"])


def _link(path: str, read: Callable[[str], bytes]) -> tuple[dict[str, str | None], dict[str, bytes]]:
    try:
        data = read(path)
    except FileNotFoundError as error:
        raise CorruptionError("state is missing", path=path) from error
    if not data.startswith(_HEAD):
        raise CorruptionError("not a state file", path=path)
    _, line, body = data[len(_HEAD) :].split(b"\n", 2)
    header = json.loads(line)
    sections, at = {}, 0
    for name, size, _ in header["sections"]:
        sections[name] = body[at : at + size]
        at += size
    return header, sections


def _read(section: bytes) -> pa.Table:
    return pa.ipc.open_stream(section).read_all()
