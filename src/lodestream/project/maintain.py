"""Reads the `maintain:` block of a table, and its `retention:`."""

from __future__ import annotations

import re

from lodestream.model.maintenance import FOREVER, MaintenancePolicy
from lodestream.project.fields import Fields, wrong_kind
from lodestream.project.mistakes import Mistakes
from lodestream.project.nodes import Node

KEYS = (
    "checkpoint_interval", "log_retention", "compact", "target_file_size", "z_order", "deleted_file_retention",
    "quarantine_retention",
)  # fmt: skip
SIZE = re.compile(r"([1-9][0-9]{0,5}) ?(KB|MB|GB)")
_UNITS = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_SIZE_LEAST, _SIZE_MOST = 64 << 10, 4 << 30
KEEP_LEAST_US = 3 * 3_600_000_000


def read_maintain(node: Node, mistakes: Mistakes) -> MaintenancePolicy:
    """`{checkpoint_interval: 100, target_file_size: 64 MB, z_order: [customer_id], …}`; what is wrong is noted."""
    fields = Fields(node, KEYS, mistakes, "maintain")
    plain = MaintenancePolicy()
    keep_us = fields.duration("deleted_file_retention")
    if keep_us is not None and keep_us < KEEP_LEAST_US:
        fix = "keep files for at least 3 hours: a running writer or reader may still need them"
        place = fields.nodes["deleted_file_retention"].place
        mistakes.add(place, "D117", "deleted files are kept too short", key="deleted_file_retention", fix=fix)
        keep_us = None
    columns = fields.strings("z_order")
    names = [name for name, _ in columns]
    for number, (name, item) in enumerate(columns):
        if name in names[:number]:
            mistakes.add(item.place, "D113", "z_order names a column twice", column=name)
    return MaintenancePolicy(
        fields.whole("checkpoint_interval") or plain.checkpoint_interval,
        fields.duration("log_retention") or plain.log_retention_us,
        fields.flag("compact") if "compact" in fields else plain.compact,
        _size(fields, mistakes) or plain.target_file_size,
        tuple(dict.fromkeys(names)),
        keep_us or plain.deleted_file_retention_us,
        read_retention(fields, "quarantine_retention"),
    )


def read_retention(fields: Fields, key: str = "retention") -> int | None:
    """`90 days` or `forever`; None when nothing, or nothing that can be read, is written."""
    node = fields.nodes.get(key)
    if node is not None and node.value == "forever":
        return FOREVER
    return fields.duration(key)


def parse_size(text: str) -> int | None:
    """Bytes of a size such as `64 MB` (of 1,024 KB each); None for anything else."""
    match = SIZE.fullmatch(text.strip())
    return int(match[1]) * _UNITS[match[2]] if match else None


def _size(fields: Fields, mistakes: Mistakes) -> int | None:
    node = fields.nodes.get("target_file_size")
    if node is None:
        return None
    size = parse_size(node.text) if isinstance(node.value, str) else None
    if size is None:
        wrong_kind(mistakes, node, "target_file_size", "a size, such as 64 MB")
    elif not _SIZE_LEAST <= size <= _SIZE_MOST:
        fix = "write a size from 64 KB to 4 GB"
        mistakes.add(node.place, "D106", "target_file_size is out of bounds", value=node.text, fix=fix)
    else:
        return size
    return None
