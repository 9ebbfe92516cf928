"""`lodestream backup`, `restore` and `replicate`: copies of the lake in another place, and going on from them."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import FAILED, Call
from lodestream.cli.output import count, size, span, when_us

if TYPE_CHECKING:
    from lodestream.app import App
    from lodestream.lake.disk import Disk
    from lodestream.operations.backup.make import Source
    from lodestream.operations.backup.replica import Replica
    from lodestream.operations.backup.vault import Point, Vault

_SHOWN = 20
_TELLING_BYTES = 16 << 20
_PLACE = "a name under stores:, a folder, abfss://… or s3://…"
TO = Annotated[str, typer.Argument(metavar="TO", help=f"Where the copy is: {_PLACE}.")]
DRY = Annotated[bool, typer.Option("--dry-run", help="Say what would be copied, and end.")]


def backup(
    call: Call,
    to: TO,
    listed: Annotated[bool, typer.Option("--list", help="Show the points that are there; make none.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file of the point once more; with --list, of all points.")
    ] = False,
    keep: Annotated[
        int | None, typer.Option("--keep", metavar="N", help="Take away all but the newest N points.")
    ] = None,
    keep_days: Annotated[
        float | None, typer.Option("--keep-days", metavar="D", help="Keep every point of the last D days as well.")
    ] = None,
    dry_run: DRY = False,
) -> None:  # fmt: skip
    """Add a point to a backup set, while the pipeline runs: only what is new since the last point crosses.

    A point is one moment of all tables with their positions, state, catalog and declarations; any can be restored. A
    run that was broken off leaves no point, and the next one goes on with what it copied. Points that fall under
    neither --keep nor --keep-days are taken away, with all that only they needed.
    """
    from lodestream.app import now_us
    from lodestream.errors import CorruptionError
    from lodestream.lake.opening import check_put_if_absent
    from lodestream.operations.backup.known import note_copy
    from lodestream.operations.backup.make import check_apart, make_point, room_of, would
    from lodestream.operations.backup.prune import prune
    from lodestream.operations.backup.vault import Vault

    app = call.app()
    place, disk = _place(app, to)
    vault = Vault(disk, place)
    if listed:
        _points(call, app, vault, verify=verify, keep=keep, keep_days=keep_days)
        return
    source = _source(call, app)
    check_apart(source, place)
    if dry_run:
        told = would(source, vault)
        text = f"would copy {count(told['files'])} files, {size(told['bytes_of_data'])} of data, to {place}"
        call.tell({"place": place, **told}, text)
        return
    vault.check_place()
    check_put_if_absent(disk, place)
    vault.make(app.project.name)
    call.note(app, "backup", place=place)
    pruned, unpruned = None, None
    with vault.turn(now_us):
        made = make_point(source, vault, room=room_of(disk, place))
        if keep is not None or keep_days is not None:
            try:
                pruned = prune(vault, now_us(), keep, keep_days)
            except CorruptionError as error:  # the point is there all the same
                unpruned = error
        points, damaged = vault.read_points()
        note_copy(app.disk, app.lake, place, "backup", points)
    checked = _verify(call, vault, [made.point], {}) if verify else None
    point = made.point
    report = {
        "place": place, "point": point.id, "files_in_point": point.file_count, "bytes_in_point": point.byte_count,
        **made.amount.told(), "tables": [dict(one) for one in point.tables], "left_out": list(point.left_out),
        "pruned": pruned, "verified": checked, "damaged": _bad(damaged),
    }  # fmt: skip
    _backed_up(call, report)
    if unpruned is not None:
        raise unpruned
    if checked is not None and checked["damaged"]:
        raise typer.Exit(FAILED)


def _backed_up(call: Call, report: Mapping[str, Any]) -> None:
    if call.json:
        call.emit(report)
        return
    held = f"{count(report['files_in_point'])} files, {size(report['bytes_in_point'])}"
    call.print(f"point {report['point']}: {len(report['tables'])} tables, {held}")
    _moved(call, "copied", report)
    for text in report["left_out"]:
        call.print(f"not in it: {text}")
    if (pruned := report["pruned"]) is not None:
        went = f"{len(pruned['points'])} points, {count(pruned['blobs'])} files, {size(pruned['bytes'])}"
        call.print(f"taken away: {went}")
    _print_bad(call, report["damaged"])
    _told_of(call, report["verified"])


def _points(
    call: Call, app: App, vault: Vault, *, verify: bool, keep: int | None, keep_days: float | None
) -> None:  # fmt: skip
    from lodestream.app import now_us
    from lodestream.errors import ConfigError
    from lodestream.operations.backup.known import copies, note_copy
    from lodestream.operations.backup.prune import prune

    if not vault.exists:
        raise ConfigError("no backup set here", place=vault.root, fix="lodestream backup makes one")
    pruned = None
    if keep is not None or keep_days is not None:
        with vault.turn(now_us):
            pruned = prune(vault, now_us(), keep, keep_days)
    points, damaged = vault.read_points()
    if pruned is not None and vault.root in [one["place"] for one in copies(app.disk, app.lake)]:
        note_copy(app.disk, app.lake, vault.root, "backup", points)
    rows: list[list[Any]] = [[id_, "damaged", "", "", ""] for id_ in damaged]
    told: list[dict[str, Any]] = [{"point": id_, "damaged": True} for id_ in damaged]
    for one in points:
        rows.append([one.id, when_us(one.made_us), len(one.tables), count(one.file_count), size(one.byte_count)])
        told.append({"point": one.id, "made_us": one.made_us, "tables": len(one.tables), "files": one.file_count,
                     "bytes": one.byte_count, "left_out": list(one.left_out)})  # fmt: skip
    rows.sort()
    told.sort(key=lambda one: one["point"])
    checked = _verify(call, vault, points, damaged) if verify else None
    if call.json:
        call.emit({"place": vault.root, "points": told, "pruned": pruned, "verified": checked})
    else:
        call.table(["point", "made", "tables", "files", "size"], rows, right={"tables", "files", "size"})
        _told_of(call, checked)
    if (checked is not None and checked["damaged"]) or damaged:
        raise typer.Exit(FAILED)


def _verify(call: Call, vault: Vault, points: list[Point], damaged: Mapping[str, Exception]) -> dict[str, Any]:
    from lodestream.operations.backup.restore import verify

    found = verify(vault, points, call.say)
    return {**found, "damaged": _bad(damaged) + found["damaged"]}


def _bad(damaged: Mapping[str, Exception]) -> list[dict[str, str]]:
    """Points that cannot be read, as `verify` tells of what is damaged."""
    return [{"point": id_, "file": f"points/{id_}.json", "problem": str(error)} for id_, error in damaged.items()]


def _print_bad(call: Call, damaged: list[dict[str, str]]) -> None:
    for one in damaged[:_SHOWN]:
        call.print(f"BAD  {one['point']}: {one['file']}: {one['problem']}")
    if (more := len(damaged) - _SHOWN) > 0:
        call.print(f"BAD  and {count(more)} more; --json shows all")


def _told_of(call: Call, checked: Mapping[str, Any] | None) -> None:
    if checked is None:
        return
    _print_bad(call, checked["damaged"])
    if not checked["damaged"]:
        call.print(f"verified: {count(checked['files'])} files, {size(checked['bytes'])}, all as they were written")


def restore(
    call: Call,
    source: Annotated[str, typer.Argument(metavar="FROM", help=f"The backup set: {_PLACE}.")],
    point: Annotated[
        str | None, typer.Option("--point", "-p", metavar="P", help="Which point; the newest without.")
    ] = None,
    home: Annotated[
        str | None, typer.Option("--home", metavar="DIR", help="Folder for catalog and keys, of a lake by URL.")
    ] = None,
    declarations: Annotated[
        str | None, typer.Option("--declarations", metavar="DIR", help="Write the project's own files there as well.")
    ] = None,
    dry_run: DRY = False,
) -> None:  # fmt: skip
    """Restore a point into an empty lake: the project's, or the one that --lake names.

    Every file is compared with its digest on the way. Broken off, the same command goes on; until it is done the lake
    refuses to be written. Then `lodestream run` goes on from the point: sources are read again from there.
    """
    from lodestream.app import App
    from lodestream.errors import ConfigError
    from lodestream.operations.backup.copying import check_room
    from lodestream.operations.backup.make import room_of
    from lodestream.operations.backup.restore import Places, check_empty, restore
    from lodestream.operations.backup.vault import Vault

    app = call.app()
    place, disk = _place(app, source)
    vault = Vault(disk, place)
    if not vault.exists:
        raise ConfigError("no backup set here", place=place, fix="name the place that lodestream backup wrote to")
    newest = vault.newest()
    made = vault.point(point) if point is not None else newest
    if made is None:
        raise ConfigError("backup set has no whole point", place=place, fix="lodestream backup makes one")
    lake, lake_disk = _lake(app, call.lake, home)
    places = Places(lake_disk, lake, lake_disk.beside(lake), declarations and os.path.abspath(declarations))
    check_empty(places, made.id)
    check_room(room_of(lake_disk, lake), made.byte_count)
    if dry_run:
        told = {"point": made.id, "lake": lake, "home": places.home, "files": made.file_count, "bytes": made.byte_count}
        call.tell(told, f"would restore {made.id}: {count(made.file_count)} files, {size(made.byte_count)}, to {lake}")
        return
    report = restore(vault, made, places, call.say)
    with App(app.project, lake, lake_disk) as restored:
        call.note(restored, "restore", point=made.id)
    if call.json:
        call.emit(report)
        return
    call.print(f"restored {made.id} to {lake}: {len(report['tables'])} tables")
    _moved(call, "restored", report)
    for text in report["left_out"]:
        call.print(f"not in it: {text}")
    for one in report["erased_since"]:
        call.print(f"erased since, and here again: {', '.join(one['columns'])}, on {when_us(one['time_us'])}; "
                   "ask for it again with lodestream erase")  # fmt: skip
    call.say("next: lodestream doctor, lodestream reconcile, then lodestream run")


def replicate(
    call: Call,
    to: TO,
    every: Annotated[
        str | None, typer.Option("--every", metavar="TIME", help="Follow the lake until told to stop, such as 30s.")
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Bring the replica to now, and end: what is done without --every.")
    ] = False,
    activate: Annotated[
        bool, typer.Option("--activate", help="Make the replica the lake that is written, and fence this one.")
    ] = False,
    no_fence: Annotated[
        bool, typer.Option("--no-fence", help="With --activate: do not reach for the lake that is left.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file of the replica once more.")] = False,
    dry_run: DRY = False,
) -> None:  # fmt: skip
    """Keep a second lake that can take over: a consistent, readable copy, behind by one pass at most.

    Only what is new crosses. Readers of the replica see whole versions, never a row whose input is not there yet. When
    the first lake is lost, --activate makes the replica the one that is written. Replicating back to a lake that was
    left takes it back to where both were the same and sends only what is new.
    """
    from lodestream.errors import ConfigError
    from lodestream.operations.backup.make import check_apart, would
    from lodestream.operations.backup.replica import Replica

    if every is not None and (once or activate or dry_run):
        raise ConfigError("--every does not go with --once, --activate or --dry-run")
    app = call.app()
    place, disk = _place(app, to)
    replica = Replica(disk, place, disk.beside(place))
    if activate:
        _activate(call, app, replica, fenced=not no_fence)
        return
    source = _source(call, app)
    check_apart(source, place)
    if dry_run:
        told = would(source, replica.vault)
        text = f"would copy {count(told['files'])} files, {size(told['bytes_of_data'])} of data, to {place}"
        call.tell({"place": place, **told}, text)
        return
    _prepare(call, replica, source)
    call.note(app, "replicate", place=place)
    if every is None:
        _follow(call, replica, source)
    else:
        _keep_following(call, replica, source, every)
    if verify:
        checked = _verify_replica(call, replica)
        if call.json:
            call.emit({"verified": checked})
        else:
            _told_of(call, checked)
        if checked["damaged"]:
            raise typer.Exit(FAILED)


def _prepare(call: Call, replica: Replica, source: Source) -> None:
    from lodestream.lake.opening import check_put_if_absent
    from lodestream.lake.standing import standing
    from lodestream.operations.backup.failover import rewind

    check_put_if_absent(replica.disk, replica.lake)
    now = standing(replica.disk, replica.lake)
    if now is not None and now.kind == "fenced":
        aside = rewind(replica, source)
        call.say(f"{replica.lake}: follows now; {sum(aside.values())} versions put aside in _lodestream/diverged")
    replica.prepare(source)


def _follow(call: Call, replica: Replica, source: Source) -> None:
    from lodestream.operations.backup.known import note_copy

    report = replica.follow(source)
    note_copy(source.disk, source.lake, replica.lake, "replica", [replica.vault.point(report["point"])])
    if call.json:
        call.emit({"place": replica.lake, **report})
        return
    call.print(f"{replica.lake}: at {report['point']}, {report['behind_s']} s behind")
    _moved(call, "copied", report)
    for text in report["left_out"]:
        call.print(f"not in it: {text}")


def _keep_following(call: Call, replica: Replica, source: Source, every: str) -> None:
    """Pass after pass until a signal comes; what another try may change ends nothing."""
    from lodestream.cli.interrupt import Interrupt
    from lodestream.errors import ConfigError, ConflictError, TransientError
    from lodestream.project.values import parse_duration

    try:
        pause_s = parse_duration(every) / 1e6
    except ValueError as error:
        raise ConfigError("--every is not a time", value=every, fix="write such as 30s") from error
    stopping = threading.Event()
    with Interrupt(call, stopping.set, "pass"):
        while not stopping.is_set():
            try:
                _follow(call, replica, source)
            except (TransientError, ConflictError) as error:
                call.say(f"again in {span(pause_s)}: {error}")
            stopping.wait(pause_s)


def _activate(call: Call, app: App, replica: Replica, *, fenced: bool) -> None:
    from lodestream.app import App, now_us
    from lodestream.operations.backup.failover import activate

    report = activate(replica, now_us, call.say, (app.disk, app.lake) if fenced else None)
    with App(app.project, replica.lake, replica.disk) as active:
        call.note(active, "activate", point=report["point"])
    if call.json:
        call.emit(report)
        return
    call.print(f"{replica.lake} is the lake that is written now, as of {report['point']} ({report['behind_s']} s ago)")
    call.print(f"activated in {report['seconds']} s")
    if report["unfenced"] is not None:
        call.print(f"NOT FENCED: {app.lake}: {report['unfenced']}")
        call.print("see that nothing runs there: both would take in the same input, and neither would know")
    for text in report["left_out"]:
        call.print(f"not in it: {text}")
    call.say(f"next: name {replica.lake} under lake:, then lodestream doctor and lodestream run")


def _verify_replica(call: Call, replica: Replica) -> dict[str, Any]:
    from lodestream.operations.backup.restore import verify

    applied = replica.applied
    return verify(replica.vault, [applied] if applied is not None else [], call.say, replica.fetcher())


def _moved(call: Call, what: str, report: Mapping[str, Any]) -> None:
    """How much was moved how fast, and what that would mean for a lake of the size that is planned for."""
    rate = size(round(report["bytes_per_s"]))
    call.print(
        f"{what} {count(report['files'])} files, {size(report['bytes'])}, in {span(report['seconds'])}: {rate}/s"
    )
    hours = report.get("hours_for_450_tb")
    if hours and report["bytes"] >= _TELLING_BYTES:
        call.print(f"at this rate 450 TB take {hours:,} hours")


def _place(app: App, text: str) -> tuple[str, Disk]:
    """A place by the name it has under `stores:`, or as a folder or URL."""
    from lodestream.lake.opening import open_lake
    from lodestream.project.lakes import is_url

    found = app.project.stores.get(text)
    place: str = app.resolve({"at": found.lake if found is not None else text})["at"]
    store = app.resolve(found.store) if found is not None else {}
    return open_lake(place if is_url(place) else os.path.abspath(place), app.project.root, store, os.environ)


def _lake(app: App, named: str | None, home: str | None) -> tuple[str, Disk]:
    """The lake to restore to: the project's, or one named on the command line."""
    from lodestream.errors import ConfigError
    from lodestream.lake.opening import open_lake

    lake, disk = _place(app, named) if named in app.project.stores and named is not None else (app.lake, app.disk)
    if home is None:
        return lake, disk
    if not disk.atomic:
        raise ConfigError("the home of a lake in a folder is that folder", home=home, fix="leave --home out")
    found = app.project.stores.get(named or "")
    store = found.store if found is not None else app.project.store
    environment = {name: value for name, value in os.environ.items() if name != "LODESTREAM_HOME"}  # --home says more
    return open_lake(lake, app.project.root, {**app.resolve(store), "home": os.path.abspath(home)}, environment)


def _source(call: Call, app: App) -> Source:
    from lodestream.app import now_us
    from lodestream.operations.backup.make import Source

    external = [f"schema registry {name}: at its own place, by reference" for name in app.project.registries]
    if app.project.catalog:
        external.append("catalog and audit log: in a PostgreSQL database, by reference; back it up on its own")
    return Source(
        app.disk, app.lake, app.home, app.project.name, app.project.root, app.flows, now_us, tuple(external),
        bool(app.project.catalog), call.say,
    )  # fmt: skip
