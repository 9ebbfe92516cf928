"""A whole project as declared: its lake, its environments and its tables, with the place of every key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lodestream.model.batch import BatchLimit
from lodestream.model.diagnostic import Diagnostic, Place
from lodestream.model.policy import Policies
from lodestream.model.table import Table, TableName

Path = tuple[str | int, ...]
"""Keys and list indexes that lead to a value in a declaration, such as `("expect", "has_id", "that")`."""


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """Bounds of one batch, and the microseconds between two looks for new input (None is the runtime's own)."""

    limit: BatchLimit = field(default_factory=BatchLimit)
    interval_us: int | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """A lake, or another place, by name: where it is, and settings of its store as written."""

    name: str
    lake: str
    store: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Project:
    """Everything declared in one project folder.

    Attributes:
        name: the project's name.
        root: absolute path of the project folder.
        lake: absolute path (or URL) of the lake; a relative `lake:` is relative to `root`.
        store: settings of the lake's object store as written; a lake in a folder has none.
        environments: by name.
        tables: every declared table, sorted by name.
        locations: place of each value of a table's declaration; the empty path is the table itself.
        batch: bounds of batches.
        state_bytes_max: bytes of state that the flows of a process may hold in memory; None for the default.
        server: settings of the server as written.
        registries: schema registries by name, with their settings as written.
        connections: settings by component name that every table's source, format and sink of that name begins with.
        catalog: settings of the catalog as written: `url` of its database.
        stores: places for copies of the lake, by name.
        deploy: settings of deployments as written.
        deploy_locations: place of each value of `deploy.databricks`.
        policies: who may see what, as `policies.yaml` declares it.
        policy_locations: place of each value of that file.
        mistakes: what is wrong so far; `load_project` refuses when there are any, `read_project` hands them on so
            that planning can add its own and all are reported at once.
        unsure: names in a table that stand for something broken, so that nothing which uses them is judged; `*`
            means that the table's columns cannot be known.
    """

    name: str
    root: str
    lake: str
    environments: Mapping[str, Environment] = field(default_factory=lambda: MappingProxyType({}))
    tables: Mapping[TableName, Table] = field(default_factory=lambda: MappingProxyType({}))
    locations: Mapping[tuple[TableName, Path], Place] = field(default_factory=lambda: MappingProxyType({}))
    batch: BatchSettings = field(default_factory=BatchSettings)
    state_bytes_max: int | None = None
    server: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    registries: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    connections: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    catalog: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    stores: Mapping[str, Environment] = field(default_factory=lambda: MappingProxyType({}))
    deploy: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    deploy_locations: Mapping[Path, Place] = field(default_factory=lambda: MappingProxyType({}))
    policies: Policies = field(default_factory=Policies)
    policy_locations: Mapping[Path, Place] = field(default_factory=lambda: MappingProxyType({}))
    store: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    mistakes: tuple[Diagnostic, ...] = ()
    unsure: Mapping[TableName, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))

    def place(self, table: TableName, *path: str | int) -> Place:
        """Where `path` of a table was declared; the nearest enclosing key when it was not written itself."""
        for end in range(len(path), -1, -1):
            if (found := self.locations.get((table, path[:end]))) is not None:
                return found
        return Place(f"tables/{table.layer}/{table.name}.yaml", 1)

    @property
    def limit(self) -> BatchLimit:
        """Bounds of one batch."""
        return self.batch.limit

    def lake_of(self, environment: str | None) -> str:
        """The lake of an environment; None is the project's own. Raises KeyError for an unknown one."""
        return self.lake if environment is None else self.environments[environment].lake
