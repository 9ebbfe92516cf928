"""What an event takes on disk in each layer, once everything that maintenance does is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import compare, events
from lodestream.app import now_us, open_project
from lodestream.lake.compaction import everything
from lodestream.lake.layout import table_path
from lodestream.lake.vacuum import vacuum
from lodestream.model.table import TableName
from lodestream.runtime.care import Care

PROJECT = Path(__file__).parent / "project"
_LATER_US = 8 * 86_400_000_000


def measure(root: Path, count: int) -> dict[str, Any]:
    """Run the benchmark's project over `count` events, maintain its tables as a week later, and look at their folders.

    Returns:
        `bytes_per_event` by layer: all files of the table, log included, over the events that came in; and `wrong`:
        what the rows lack.
    """
    dataset = events.ensure(root / "cache", events.Spec(count, files=20))
    for file in PROJECT.rglob("*.yaml"):
        target = root / file.relative_to(PROJECT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    (root / "events").symlink_to(dataset.lines.absolute())
    app = open_project(str(root))
    app.run()
    around = replace(app.pipeline().around, clock=lambda: now_us() + _LATER_US)
    found, files = {}, {}
    for name in (TableName("bronze", "events"), TableName("silver", "events"), TableName("gold", "activity")):
        care = Care.of(name, around, app.flows)
        table = care.open()
        assert table is not None
        care.compact(table, everything(table.files(), target_bytes=care.policy.target_file_size), care.policy)
        table.refresh()
        table.checkpoint(around.clock())
        table.checkpoint(around.clock())
        table.clean_log(keep_versions=1, needed_from=care.needed_from(table), older_than_us=around.clock())
        vacuum(table, care.unneeded(table))
        folder = Path(table_path(app.lake, name))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        found[name.layer], files[name.layer] = round(size / count, 2), [folder / add.file for add in table.files()]
    app.close()
    ours = compare.tables("lodestream", files["silver"], files["gold"])
    return {"bytes_per_event": found, "wrong": compare.compare(compare.truth(dataset), ours).lines}
