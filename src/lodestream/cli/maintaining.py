"""`lodestream table optimize | vacuum | expire | checkpoint`: what maintenance does by itself, now."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import Call, table_named

if TYPE_CHECKING:
    from lodestream.app import App
    from lodestream.lake.compaction import Rewritten
    from lodestream.lake.table import DeltaTable
    from lodestream.model.maintenance import MaintenancePolicy
    from lodestream.runtime.care import Care

TABLE = Annotated[str, typer.Argument(help="layer.name, or layer.name__quarantine")]
DRY_RUN = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and end.")]
_SHOWN = 20


def optimize(
    call: Call,
    table: TABLE,
    z_order: Annotated[str | None, typer.Option(metavar="COLUMNS", help="Order rows by these: a,b.")] = None,
    target_size: Annotated[str | None, typer.Option(metavar="SIZE", help="Size of the files, such as 64 MB.")] = None,
    dry_run: DRY_RUN = False,
) -> None:
    """Put a table's small files together; with Z-order columns, lay rows that are close in them close together.

    The table file's `maintain:` says size and columns unless the options do. Rows, versions and what readers have read
    stay as they are; writers go on. Ctrl-C ends it after the files under way.
    """
    from lodestream.cli.output import size
    from lodestream.lake.compaction import check_z_order, everything

    opened, care, found = _open(call, table)
    policy = _policy(care.policy, z_order, target_size)
    metadata = found.snapshot.metadata
    check_z_order(metadata.schema, policy.z_order, metadata.partition_columns)
    live = found.snapshot.files.values()
    groups = everything(live, target_bytes=policy.target_file_size, z_columns=policy.z_order)
    before, size_before = len(live), sum(add.size for add in live)
    done: list[Rewritten] = []
    if not dry_run and groups:
        call.note(opened, "optimize", str(care.name))
        with _interruptible(call, "files") as stopping:

            def told(one: Rewritten) -> None:
                done.append(one)
                call.say(
                    f"{len(done)} of {len(groups)}: {one.before} files of {size(one.bytes_before)} are {one.after}"
                )

            care.compact(found, groups, policy, told, stopping.is_set)
        found.refresh()
    live = found.snapshot.files.values()
    answer = {
        "table": str(care.name), "dry_run": dry_run, "z_order": list(policy.z_order),
        "target_size": policy.target_file_size, "groups": len(groups), "rewritten": len(done),
        "files_to_rewrite": sum(len(group.files) for group in groups),
        "files": {"before": before, "after": len(live)},
        "bytes": {"before": size_before, "after": sum(add.size for add in live)},
        "version": found.snapshot.version,
    }  # fmt: skip
    if dry_run:
        told_rewrite = f"{answer['files_to_rewrite']} of {before} files would become about {_about(groups, policy)}"
        call.tell(answer, f"{care.name}: {told_rewrite}" if groups else f"{care.name}: nothing to do")
    else:
        after = size(sum(add.size for add in live))
        call.tell(answer, f"{care.name}: {before} files of {size(size_before)} are {len(live)} of {after}")


def vacuum(
    call: Call,
    table: TABLE,
    retain: Annotated[str | None, typer.Option(metavar="DURATION", help="Safety window, 3 hours at least.")] = None,
    dry_run: DRY_RUN = False,
) -> None:
    """Delete the data files that no version has any more, and those of attempts that were never committed.

    A file stays for as long as `maintain: deleted_file_retention` says (2 days), and beyond while a stream, a lookup, a
    sink or a batch under way needs it. Versions from before the window can then no longer be read.
    """
    from lodestream.cli.output import size
    from lodestream.lake.vacuum import vacuum as delete

    opened, care, found = _open(call, table)
    files = care.unneeded(found, None if retain is None else _duration(retain))
    total = sum(one.bytes for one in files)
    deleted = 0
    if not dry_run and files:
        call.note(opened, "vacuum", str(care.name))
        with _interruptible(call, "file") as stopping:
            deleted = delete(found, files, stopping.is_set)
    answer: dict[str, Any] = {
        "table": str(care.name), "dry_run": dry_run, "unneeded": len(files), "bytes": total, "deleted": deleted,
        "removed": sum(one.why == "removed" for one in files), "orphans": sum(one.why == "orphan" for one in files),
    }  # fmt: skip
    if call.json:
        call.emit({**answer, "files": [one.file for one in files]})
        return
    for one in files[:_SHOWN] if dry_run else ():
        call.print(f"{one.file}  {size(one.bytes)}  {one.why}")
    if dry_run and len(files) > _SHOWN:
        call.print(f"… and {len(files) - _SHOWN} more")
    verb = "would be deleted" if dry_run else "deleted"
    count = len(files) if dry_run else deleted
    call.print(f"{care.name}: {count} files of {size(total)} {verb}" if files else f"{care.name}: nothing to delete")


def expire(call: Call, table: TABLE, dry_run: DRY_RUN = False) -> None:
    """Let the rows go that are past the table's retention, whole files at a time.

    Without `retention:` bronze keeps rows for 90 days, silver and gold for 2 years, a table with changes: or sql: for
    ever. Earlier versions stay readable until a vacuum.
    """
    from lodestream.cli.output import span

    opened, care, found = _open(call, table)
    files = care.past(found)
    rows = sum(add.num_records or 0 for add in files)
    left = 0
    if not dry_run and files:
        call.note(opened, "expire", str(care.name))
        left = care.expire(found, files)
    keeps_s = None if care.keeps_us is None else care.keeps_us / 1e6
    kept = "for ever" if keeps_s is None else span(keeps_s)
    answer = {"table": str(care.name), "dry_run": dry_run, "retention_s": keeps_s, "files": len(files),
              "rows": rows, "expired": left}  # fmt: skip
    verb = f"{rows} rows in {len(files)} files would go" if dry_run else f"{left} rows went"
    call.tell(answer, f"{care.name} (kept {kept}): {verb}")


def checkpoint(call: Call, table: TABLE, dry_run: DRY_RUN = False) -> None:
    """Write a checkpoint of the table's log, and delete the log entries that nobody needs.

    An entry stays while it is younger than `maintain: log_retention` (a day), among the newest 1,000, or needed by a
    stream, a sink or recovery.
    """
    from lodestream.app import now_us
    from lodestream.lake.log import list_log
    from lodestream.runtime.maintain import Upkeep

    opened, care, found = _open(call, table)
    names = list_log(found.disk, found.path)
    deleted = 0
    if not dry_run:
        call.note(opened, "checkpoint", str(care.name))
        found.checkpoint(now_us(), care.policy.deleted_file_retention_us)
        deleted = found.clean_log(
            keep_versions=Upkeep().versions_kept, needed_from=care.needed_from(found),
            older_than_us=now_us() - care.policy.log_retention_us,
        )  # fmt: skip
    version = found.snapshot.version
    answer = {"table": str(care.name), "dry_run": dry_run, "version": version, "entries": len(names.commits),
              "last_checkpoint": max(names.checkpoints, default=None), "deleted": deleted}  # fmt: skip
    verb = "would get a checkpoint at" if dry_run else "has a checkpoint at"
    call.tell(answer, f"{care.name} {verb} version {version}; {deleted} of {len(names.commits)} log entries deleted")


def _open(call: Call, text: str) -> tuple[App, Care, DeltaTable]:
    from lodestream.errors import ConfigError
    from lodestream.runtime.care import Care

    opened = call.app()
    name = table_named(text, opened.query.tables())
    care = Care.of(name, opened.pipeline().around, opened.flows)
    found = care.open()
    if found is None:
        raise ConfigError("table is not in the lake yet; lodestream run makes it", table=str(name))
    return opened, care, found


def _policy(policy: MaintenancePolicy, z_order: str | None, target_size: str | None) -> MaintenancePolicy:
    from lodestream.errors import ConfigError
    from lodestream.project.maintain import parse_size

    if z_order is not None:
        policy = replace(policy, z_order=tuple(name.strip() for name in z_order.split(",") if name.strip()))
    if target_size is not None:
        size = parse_size(target_size)
        if size is None:
            raise ConfigError("not a size", value=target_size, fix="write such as 64 MB")
        policy = replace(policy, target_file_size=size)
    return policy


def _duration(text: str) -> int:
    from lodestream.errors import ConfigError
    from lodestream.project.values import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(str(error), value=text, fix="write such as '7 days'") from None


def _about(groups: list[Any], policy: MaintenancePolicy) -> int:
    return sum(max(1, round(group.bytes / policy.target_file_size)) for group in groups)


@contextlib.contextmanager
def _interruptible(call: Call, what: str) -> Iterator[threading.Event]:
    """Gives an event that Ctrl-C or SIGTERM sets; the verb then ends with 130."""
    from lodestream.cli.interrupt import Interrupt

    stopping = threading.Event()
    with Interrupt(call, stopping.set, what=what) as interrupt:
        yield stopping
    if interrupt.seen:
        raise typer.Exit(130)
