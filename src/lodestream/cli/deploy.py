"""`lodestream deploy`: the project as something that runs elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import Call, verb

if TYPE_CHECKING:
    from lodestream.deploy.databricks import Bundle
    from lodestream.deploy.folder import Written

app = typer.Typer(help="The project as something that runs elsewhere.", no_args_is_help=True, rich_markup_mode=None)

_LISTED_MAX = 12


def databricks(
    call: Call,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder of the bundle.")] = "bundle",
    check: Annotated[bool, typer.Option("--check", help="Write nothing; check the bundle that is there.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that somebody else wrote or edited.")] = False,
) -> None:
    """Write the project as a bundle for Azure Databricks: jobs, cluster, warehouse, schemas, maintenance.

    Nothing is sent anywhere, and no bundle of this command was ever deployed by its makers: it is checked against a
    description of the keys that it uses. The real share of spot machines is shown for several sizes of a cluster. A
    table that only the embedded engine can run is refused with its reason. The same project gives the same files.
    """
    folder = Path(call.project) / out
    call.hint = "lodestream deploy databricks --help"
    if check:
        _check(call, folder)
        return
    from lodestream.deploy.check import check_bundle
    from lodestream.deploy.databricks import make_bundle
    from lodestream.deploy.folder import write_bundle
    from lodestream.project.mistakes import ProjectError

    opened = call.app()
    bundle = make_bundle(opened.project, opened.compiled_for("spark"))
    if found := check_bundle(bundle.files):
        raise ProjectError(found, "bundle")
    _show(call, folder, bundle, write_bundle(folder, bundle.files, force=force))


def _check(call: Call, folder: Path) -> None:
    from lodestream.deploy.check import check_bundle
    from lodestream.deploy.databricks import NEVER_DEPLOYED
    from lodestream.deploy.folder import read_bundle
    from lodestream.deploy.jobs import WHEEL
    from lodestream.project.mistakes import ProjectError

    files, edited = read_bundle(folder)
    if found := check_bundle(files):
        raise ProjectError(found, "bundle")
    there = WHEEL in files
    if call.json:
        call.emit({"ok": True, "folder": str(folder), "files": len(files), "edited": edited, "wheel": there,
                   "deployed": False})  # fmt: skip
        return
    call.print(f"{folder}: {len(files)} files, no mistake found")
    for path in edited:
        call.print(f"edited: {path}")
    if not there:
        call.print(f"missing: {WHEEL}; put the package there before you deploy")
    call.print(f"note: {NEVER_DEPLOYED}")


def _show(call: Call, folder: Path, bundle: Bundle, written: Written) -> None:
    from lodestream.deploy.databricks import NEVER_DEPLOYED
    from lodestream.deploy.jobs import WHEEL

    if call.json:
        call.emit(_told(folder, bundle, written))
        return
    for word, paths in (("new", written.new), ("changed", written.changed), ("removed", written.removed)):
        for path in paths[:_LISTED_MAX]:
            call.print(f"{word}: {folder / path}")
        if len(paths) > _LISTED_MAX:
            call.print(f"{word}: {len(paths) - _LISTED_MAX} more")
    if written.same:
        call.print(f"as before: {len(written.same)} files")
    call.print(f"jobs: {', '.join(bundle.jobs)}\n")
    rows = [(one.workers, one.machines, one.spot, f"{one.share:.0%}") for one in bundle.shares]
    call.table(("workers", "with driver", "spot", "share"), rows, right=("workers", "with driver", "spot", "share"))
    call.print()
    for note in bundle.notes:
        call.print(f"note: {note}\n    do: {note.fix}")
    for name in bundle.secrets:
        call.print(f"secret: {bundle.scope}/{name}")
    call.print(f"wheel: put it at {folder / WHEEL}")
    call.print(f"note: {NEVER_DEPLOYED}")
    call.say(f"next: lodestream deploy databricks --check --out {folder}, then databricks bundle validate in it")


def _told(folder: Path, bundle: Bundle, written: Written) -> dict[str, Any]:
    return {
        "bundle": bundle.name,
        "folder": str(folder),
        "deployed": False,
        "written": {"new": written.new, "changed": written.changed, "same": written.same, "removed": written.removed},
        "jobs": bundle.jobs,
        "spot": [
            {"workers": one.workers, "machines": one.machines, "spot": one.spot, "share": round(one.share, 4)}
            for one in bundle.shares
        ],
        "notes": [
            {"file": one.file, "line": one.line, "code": one.code, "message": one.message, "fix": one.fix}
            | dict(one.facts)
            for one in bundle.notes
        ],
        "secrets": [f"{bundle.scope}/{name}" for name in bundle.secrets],
    }


app.command("databricks", short_help="Write a bundle for Azure Databricks.")(verb(databricks))
