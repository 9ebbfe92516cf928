"""What is shared with whom: the project is a share, its layers are the schemas, and tables are had whole or not at all.

Nobody can filter or mask a file. Where a policy hides rows or columns of a table from somebody, they are not given its
files; every other door shows them their part.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lodestream.apis.problems import ProblemError
from lodestream.errors import AccessError, ConfigError, LodestreamError
from lodestream.lake.layout import table_path
from lodestream.lake.log import Commit, Metadata, Snapshot, list_log
from lodestream.lake.paths import decode_path
from lodestream.model.access import Principal, TableAccess
from lodestream.model.table import TableName
from lodestream.ports.authority import Event
from lodestream.query.service import QueryService

DOOR = "sharing"
_ELSEWHERE = "a file cannot be given in part; ask for the rows in SQL or over REST"


@dataclass(frozen=True, slots=True)
class Shared:
    """A version of a table that somebody sees as it is stored.

    Attributes:
        name: of the table.
        snapshot: the version.
        access: how they see it; `whole`.
    """

    name: TableName
    snapshot: Snapshot
    access: TableAccess


class Shares:
    """What there is for somebody.

    Args:
        service: the read path.
        project: name of the share.
    """

    def __init__(self, service: QueryService, project: str) -> None:
        self._service, self.share = service, project

    def tables(self, principal: Principal) -> list[TableName]:
        """The tables that somebody can have, by layer and name; damaged ones are passed over."""
        return [name for name in self._service.tables(principal) if self._can_have(name, principal)]

    def check(self, share: str) -> None:
        """Raise ProblemError 404 when there is no share of that name."""
        if share.lower() != self.share.lower():
            raise ProblemError(404, "no such share", nearest=self.share)

    def name(self, names: Mapping[str, str]) -> TableName:
        """The table that `share`, `schema` and `table` in a path name. Raises ProblemError 404."""
        self.check(names["share"])
        try:
            return TableName.parse(f"{names['schema']}.{names['table']}".lower())
        except ValueError:
            raise ProblemError(404, "no such table in the lake") from None

    def open(self, name: TableName, principal: Principal, version: int | None = None) -> Shared:
        """A version of a table, the newest for None.

        Raises:
            ProblemError: 404 there is no such table for them, 403 they may not read it or not all of it.
            ConfigError: there is no such version.
            DataLossRefused: the version is no longer kept.
            TransientError: it cannot be read now.
        """
        try:
            found = self._service.access(name, principal)
        except ConfigError as error:
            raise ProblemError(404, error.message, nearest=error.facts.get("nearest")) from None
        except AccessError as error:
            raise self._refused(name, principal, error.message) from None
        snapshot, access = found if version is None else self._service.access(name, principal, version)
        if hides := _hides(access, snapshot.metadata):
            raise self._refused(name, principal, f"{hides} binds you on this table, and {_ELSEWHERE}", access)
        return Shared(name, snapshot, access)

    def commits(self, name: TableName, first: int, last: int) -> Iterator[Commit]:
        """Versions of a table, both inclusive. Raises DataLossRefused when the log no longer has one."""
        table, _ = self._service.snapshots.pin(name)
        return table.commits(first - 1, last)

    def version_at(self, name: TableName, time_us: int) -> int:
        """The newest version that was there at a time. Raises ConfigError when there was none."""
        return self._service.snapshots.version_at(name, time_us)

    def first_since(self, name: TableName, time_us: int) -> int:
        """The first version that is not older than a time; one after the newest when all are."""
        try:
            version = self.version_at(name, time_us)
        except ConfigError:  # all that are still there are newer
            table, _ = self._service.snapshots.pin(name)
            return min(list_log(self._service.disk, table.path).commits)
        (commit,) = self.commits(name, version, version)
        return version if commit.timestamp_ms * 1000 == time_us else version + 1

    def copy(self, name: TableName, path: str) -> str:
        """Where a data file, by its path in the log, or a copy of it is on this machine.

        Raises:
            FileNotFoundError: it is gone.
            TransientError: the store does not give it now.
        """
        file = decode_path(path, str(name))
        (found,) = self._service.disk.copies([os.path.join(table_path(self._service.lake, name), file)])
        return found

    def record(self, shared: Shared, principal: Principal, action: str, files: int) -> None:
        """Put into the audit log that somebody is given files. Raises TransientError when it cannot be written."""
        self._service.authority.record(Event(
            principal.name, principal.via, DOOR, action, "allowed", (f"{shared.name}@{shared.snapshot.version}",),
            shared.access.policies, shared.access.version, {"files": files},
        ))  # fmt: skip

    def _can_have(self, name: TableName, principal: Principal) -> bool:
        try:
            snapshot, access = self._service.access(name, principal)
        except LodestreamError:
            return False
        return _hides(access, snapshot.metadata) is None

    def _refused(
        self, name: TableName, principal: Principal, reason: str, access: TableAccess | None = None
    ) -> ProblemError:
        authority = self._service.authority
        policies, version = (access.policies, access.version) if access else ((), authority.version())
        authority.record(Event(
            principal.name, principal.via, DOOR, "read", "refused", (str(name),), policies, version, {"reason": reason}
        ))  # fmt: skip
        return ProblemError(403, reason)


def _hides(access: TableAccess, metadata: Metadata) -> str | None:
    """What hides a part of a table from somebody."""
    if access.filters:
        return "a row filter"
    return None if access.whole and len(access.columns) == len(metadata.schema) else "a mask"
