"""Where things lie in a lake: `<layer>/<table>`, its quarantine beside it, and `_lodestream` for the flows."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lodestream.model.table import TableName

QUARANTINE_SUFFIX = "__quarantine"
EPOCH_PROPERTY = "lodestream.epoch"
RENAMED_PROPERTY = "lodestream.renamed"
"""Says that a column was renamed: files from before it have another name for what they hold."""
ERASURE_PROPERTY = "lodestream.erasure"
"""The last erasure that went through a table, and the first batch that did: `<id>@<batch>`."""


def table_path(lake: str, name: TableName) -> str:
    """Folder of a table."""
    return os.path.join(lake, name.layer, name.name)


def quarantine_name(name: TableName) -> TableName:
    """The quarantine table of a table."""
    return TableName(name.layer, name.name + QUARANTINE_SUFFIX)


def flow_folder(lake: str, name: TableName) -> str:
    """Folder of what a table's flow keeps: plans and state of each epoch."""
    return os.path.join(lake, "_lodestream", "flows", str(name))


def caught_up_file(lake: str, name: TableName) -> str:
    """The file that says that a table has taken in what was there when its flow began."""
    return os.path.join(flow_folder(lake, name), "caught_up")


def erased_by(configuration: Mapping[str, str]) -> tuple[str, int]:
    """The id of the last erasure that a table's properties name, and the first batch of it; ("", 0) for none."""
    erasure, _, batch = configuration.get(ERASURE_PROPERTY, "").partition("@")
    return erasure, int(batch or 0)


def erasures_folder(lake: str) -> str:
    """Folder of what was erased from the lake: who asked when, and keyed hashes of whom, never the values."""
    return os.path.join(lake, "_lodestream", "erasures")


def pins_folder(lake: str) -> str:
    """Folder of what those who copy the lake still need of it."""
    return os.path.join(lake, "_lodestream", "pins")


def standing_file(lake: str) -> str:
    """The file that says why the lake is not written; a lake that is has none."""
    return os.path.join(lake, "_lodestream", "standing.json")


def copies_file(lake: str) -> str:
    """The file that says which backup sets and replicas were made of the lake."""
    return os.path.join(lake, "_lodestream", "copies.json")


def replica_folder(lake: str) -> str:
    """Folder of what a replica knows of its own files, and of what is about to be put in place."""
    return os.path.join(lake, "_lodestream", "replica")


def diverged_folder(lake: str, point: str) -> str:
    """Folder of what a lake had committed after the point at which its replica took over, and was put aside."""
    return os.path.join(lake, "_lodestream", "diverged", point)


def ingest_folder(home: str) -> str:
    """Folder of the logs of pushed events."""
    return os.path.join(home, "_lodestream", "ingest")


def failure_note(lake: str, name: TableName) -> str:
    """The file in which a pipeline says that a table's flow failed."""
    return os.path.join(flow_folder(lake, name), "failed.json")


def epoch_of(configuration: Mapping[str, str]) -> int:
    """The rebuild generation that a table's properties name; a table that was never rebuilt is in its first."""
    return int(configuration.get(EPOCH_PROPERTY, "1"))


def app_id(name: TableName, epoch: int) -> str:
    """The Delta application id of a flow's commits; its version is the batch number."""
    return f"lodestream/{name}/{epoch}"


def present_app_id(name: TableName, configuration: Mapping[str, str]) -> str:
    """The same in the present epoch of the flow's table, whose properties these are."""
    return app_id(name, epoch_of(configuration))


def component_cache(lake: str) -> str:
    """Folder in which components may keep what they can fetch again, such as schemas of a registry."""
    return os.path.join(lake, "_lodestream", "cache")


def registry_file(lake: str) -> str:
    """Where the lake's own schema registry keeps its schemas."""
    return os.path.join(lake, "_lodestream", "registry.db")


def keys_path(lake: str) -> str:
    """The file of the lake's API keys."""
    return os.path.join(lake, "_lodestream", "access", "keys.json")


def catalog_file(lake: str) -> str:
    """Where the lake's catalog keeps users, grants and policies."""
    return os.path.join(lake, "_lodestream", "access", "catalog.db")


def cursors_path(lake: str) -> str:
    """The file of what cursors of pages are signed with."""
    return os.path.join(lake, "_lodestream", "access", "cursors.key")


def sharing_path(lake: str) -> str:
    """The file of what addresses of shared files are signed with."""
    return os.path.join(lake, "_lodestream", "access", "sharing.key")
