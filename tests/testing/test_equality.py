"""Lakes are compared as multisets of rows, whatever is in them."""

from __future__ import annotations

from pathlib import Path

from lodestream.app import open_project
from lodestream.testing.equality import compare_lakes
from tests.engines.lakes import Lab


def test_windows_that_end_after_the_year_9999_are_compared_too(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.table(
        "bronze.events",
        "source: {files: {path: events, settle: 0}}\nformat: json\ncolumns: {id: bigint, at: timestamp}\n",
    )
    lab.table(
        "gold.hours",
        "from: stream(bronze.events)\nskip_silver: true\nevent_time: {column: at, delay: 1 second}\n"
        "window: {every: 1 hour}\nmeasures: {n: count(*)}\nemit: updates\n",
    )
    lab.events([{"id": 1, "at": "9999-12-31T23:59:59Z"}, {"id": 2, "at": "2026-01-01T00:00:00Z"}, "torn"])
    lab.run()
    app, other = lab.app(), open_project(str(tmp_path), lake="other")
    assert compare_lakes(app, app) == (5, [])
    other.run()
    assert compare_lakes(app, other) == (5, [])
    lab.events([{"id": 3, "at": "9999-12-31T23:59:58Z"}])
    lab.run()
    compared, differences = compare_lakes(lab.app(), other)
    assert compared == 6
    assert [text.partition(":")[0] for text in differences] == ["bronze.events", "gold.hours"]
