"""How each table of a lake stands, read from its log: version, rows, batch, watermark, freshness, accounting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from lodestream.engines.embedded.asking import trouble
from lodestream.engines.embedded.ledger import ledger_path, totals
from lodestream.engines.embedded.sink_memory import known_sinks
from lodestream.engines.embedded.store import FlowStore
from lodestream.errors import CorruptionError, DataLossRefused, LodestreamError
from lodestream.lake.actions import AddFile, Commit
from lodestream.lake.disk import Disk
from lodestream.lake.layout import app_id, epoch_of, present_app_id, quarantine_name, table_path
from lodestream.lake.log import list_log, read_commit
from lodestream.lake.retention import retention_id
from lodestream.lake.table import DeltaTable
from lodestream.model.maintenance import quarantine_retention_us
from lodestream.model.table import Table, TableName


@dataclass(frozen=True)
class SinkStatus:
    """How far one sink of a table is.

    Attributes:
        sink: its name, such as `gold.revenue -> kafka:revenue`.
        version: every change up to this version is published; -1 for none.
        behind: versions of the table that are not published yet, those without any change included.
        under_way: last version of a range that was begun and is not known to be published; None for none.
        messages: published so far, as far as is known.
    """

    sink: str
    version: int
    behind: int
    under_way: int | None
    messages: int


@dataclass(frozen=True)
class AskingStatus:
    """How a table with a slow enricher stands.

    Attributes:
        waiting: rows that wait for an answer, as of the last batch.
        questions: different questions that have come to an end.
        answers: those that have an answer.
        refusals: those that have none and will not get one.
        tries: how often they were asked.
        from_ledger: rows whose question had been answered before they came, in the batches that are counted.
        timeouts: rows that went on without an answer, in those batches.
        trouble: why nobody answers, None when somebody does.
    """

    waiting: int
    questions: int
    answers: int
    refusals: int
    tries: int
    from_ledger: int
    timeouts: int
    trouble: str | None


@dataclass(frozen=True)
class MaintenanceStatus:
    """How a table is maintained, and what waits.

    Attributes:
        retention_s: how long rows are kept, None for ever.
        checkpoint_interval: commits between two checkpoints.
        log_retention_s: age under which log entries stay.
        compact: whether small files are put together by themselves.
        target_file_size: bytes from which a file is left alone.
        z_order: columns along whose Z-curve compacted rows lie.
        deleted_file_retention_s: how long a file stays that no version has any more.
        checkpoint: version of the newest checkpoint, None for none.
        log_entries: versions that have an entry in the log.
        small_files: live files below the target size, without hot ones.
        removed_files: files that no version has any more and that a checkpoint still knows.
        expired_rows: rows that retention has taken in this epoch.
        quarantine_retention_s: how long entries of its quarantine are kept, None for ever.
    """

    retention_s: float | None
    checkpoint_interval: int
    log_retention_s: float
    compact: bool
    target_file_size: int
    z_order: tuple[str, ...]
    deleted_file_retention_s: float
    checkpoint: int | None
    log_entries: int
    small_files: int
    removed_files: int
    expired_rows: int
    quarantine_retention_s: float | None


@dataclass
class TableStatus:
    """What is known about one table.

    Attributes:
        table: `layer.name`.
        exists: whether it is in the lake; when not, the rest has its defaults.
        version: newest Delta version.
        rows: live rows; None when a file does not say.
        files: live data files.
        size_bytes: of the live data files.
        epoch: rebuild generation.
        batch: last committed batch of the flow in this epoch.
        planned: highest batch that is planned; above `batch` while one is under way or was interrupted.
        watermark_us: rows at or before it are late, microseconds since 1970.
        max_event_us: newest event time taken in.
        freshness_s: the present less `max_event_us`; None without event time.
        last_commit_us: when the last batch was committed.
        age_s: the present less `last_commit_us`.
        counts: rows by disposition, summed over the batches whose commits are still in the log.
        counted_from: first batch of that sum; 1 when it is complete.
        state_rows: what its flow held after the last batch, by kind as `FlowState.held` has them; empty for a
            flow without state.
        state_bytes: how much memory that takes.
        state_spilled_bytes: how much lies in files besides, beyond the bound of memory.
        quarantine_rows: records in its quarantine table, resolutions included.
        pending: what `run` would change first (`create`, `rebuild`, …), None for nothing.
        sinks: how far its sinks are, those that ever began.
        asking: how asking goes, None for a table that does not ask.
        maintenance: how it is maintained, None for a table that nobody declares.
        error: why the table could not be looked at, None when it could.
    """

    table: str
    exists: bool = False
    version: int = -1
    rows: int | None = None
    files: int = 0
    size_bytes: int = 0
    epoch: int = 1
    batch: int = 0
    planned: int = 0
    watermark_us: int | None = None
    max_event_us: int | None = None
    freshness_s: float | None = None
    last_commit_us: int | None = None
    age_s: float | None = None
    counts: dict[str, int] = field(default_factory=dict)
    counted_from: int = 1
    state_rows: dict[str, int] = field(default_factory=dict)
    state_bytes: int = 0
    state_spilled_bytes: int = 0
    quarantine_rows: int | None = None
    pending: str | None = None
    sinks: list[SinkStatus] = field(default_factory=list)
    asking: AskingStatus | None = None
    maintenance: MaintenanceStatus | None = None
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        """The status as JSON values."""
        return asdict(self)


def read_status(
    disk: Disk,
    lake: str,
    names: Iterable[TableName],
    *,
    now_us: int,
    pending: Mapping[TableName, str] | None = None,
    declared: Mapping[TableName, Table] | None = None,
) -> list[TableStatus]:
    """The status of each table, in the given order; a damaged table says so and does not hide the others.

    Args:
        disk: the lake's disk.
        lake: root folder of the lake.
        names: tables to look at.
        now_us: the present, microseconds since 1970.
        pending: kind of change that waits, by table.
        declared: the declarations, for how tables are maintained.
    """
    found = []
    for name in names:
        status = TableStatus(str(name), pending=(pending or {}).get(name))
        try:
            table = DeltaTable.open(disk, table_path(lake, name))
            if table is None:
                found.append(status)
                continue
            _fill(status, disk, lake, name, table, now_us)
            if declared is not None and name in declared:
                status.maintenance = _maintenance(disk, table, declared[name], declared)
        except LodestreamError as error:
            status.error = str(error)
        found.append(status)
    return found


def _maintenance(
    disk: Disk, table: DeltaTable, declared: Table, others: Mapping[TableName, Table]
) -> MaintenanceStatus:  # fmt: skip
    policy, snapshot = declared.maintenance, table.snapshot
    above = [name for name in (declared.from_, declared.join.table if declared.join else None) if name is not None]
    read = [others[name].keeps_us if name in others else None for name in above]
    aside_us = quarantine_retention_us(declared.name.layer, declared.retention_us, policy, read)
    names = list_log(disk, table.path)
    application = present_app_id(declared.name, snapshot.metadata.configuration)
    small = sum(not add.hot and add.size < policy.target_file_size for add in snapshot.files.values())
    return MaintenanceStatus(
        None if declared.keeps_us is None else declared.keeps_us / 1e6, policy.checkpoint_interval,
        policy.log_retention_us / 1e6, policy.compact, policy.target_file_size, policy.z_order,
        policy.deleted_file_retention_us / 1e6, max(names.checkpoints, default=None), len(names.commits), small,
        len(snapshot.tombstones), snapshot.txns.get(retention_id(application), 0),
        None if aside_us is None else aside_us / 1e6,
    )  # fmt: skip


def _fill(status: TableStatus, disk: Disk, lake: str, name: TableName, table: DeltaTable, now_us: int) -> None:
    snapshot = table.snapshot
    status.exists, status.version = True, snapshot.version
    status.rows, status.files = _rows(snapshot.files.values()), len(snapshot.files)
    status.size_bytes = sum(add.size for add in snapshot.files.values())
    status.epoch = epoch_of(snapshot.metadata.configuration)
    application = app_id(name, status.epoch)
    status.batch = snapshot.txns.get(application, 0)
    status.planned = max(FlowStore(disk, lake, name, status.epoch).last_planned(), status.batch)
    _sum(status, disk, table.path, application)
    found = totals(disk, lake, name)
    if found is not None:
        status.asking = AskingStatus(
            status.state_rows.get("asking", 0), **found, from_ledger=status.counts.get("from_ledger", 0),
            timeouts=status.counts.get("timeout", 0), trouble=trouble(disk, ledger_path(lake, name)),
        )  # fmt: skip
    if status.max_event_us is not None:
        status.freshness_s = (now_us - status.max_event_us) / 1e6
    if status.last_commit_us is not None:
        status.age_s = (now_us - status.last_commit_us) / 1e6
    status.sinks = [
        SinkStatus(
            str(sink), kept.position.version, max(0, snapshot.version - kept.position.version),
            kept.upto if kept.under_way else None, kept.messages,
        )
        for sink, kept in known_sinks(disk, lake, name).items()
    ]  # fmt: skip
    quarantine = DeltaTable.open(disk, table_path(lake, quarantine_name(name)))
    if quarantine is not None:
        status.quarantine_rows = _rows(quarantine.snapshot.files.values())


def _sum(status: TableStatus, disk: Disk, path: str, application: str) -> None:
    """Sum up the commits of the present epoch that the log still has."""
    first: int | None = None
    for version in sorted(list_log(disk, path).commits):
        commit = _commit(disk, path, version)
        if commit is None or application not in commit.txns:
            continue
        first = commit.txns[application] if first is None else first
        for kind, number in (commit.info.get("counts") or {}).items():
            status.counts[kind] = status.counts.get(kind, 0) + int(number)
        status.watermark_us = commit.info.get("watermark_us") or status.watermark_us
        status.max_event_us = commit.info.get("max_event_us") or status.max_event_us
        status.last_commit_us = commit.timestamp_ms * 1000
        status.state_rows = commit.info.get("state_rows") or {}
        status.state_bytes = commit.info.get("state_bytes") or 0
        status.state_spilled_bytes = commit.info.get("state_spilled_bytes") or 0
    status.counted_from = 1 if first is None else first


def _commit(disk: Disk, path: str, version: int) -> Commit | None:
    try:
        return read_commit(disk, path, version)
    except (FileNotFoundError, DataLossRefused):
        return None  # cleaned up since it was listed
    except CorruptionError:
        return None  # a torn commit at the end; opening the table has already judged it


def _rows(files: Iterable[AddFile]) -> int | None:
    counts = [add.num_records for add in files]
    return None if any(count is None for count in counts) else sum(count or 0 for count in counts)
