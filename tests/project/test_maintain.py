"""The `maintain:` block and `retention:`: what is read, what is refused, what a change of them means."""

import pytest

from lodestream.model.maintenance import FOREVER, MaintenancePolicy, quarantine_retention_us
from lodestream.model.table import TableName
from lodestream.project.load import load_project
from lodestream.project.maintain import parse_size
from lodestream.project.mistakes import ProjectError

DAY_US = 86_400_000_000


def load(tmp_path, text, name="bronze.e"):
    (tmp_path / "lodestream.yaml").write_text("project: p\n")
    layer, short = name.split(".")
    (tmp_path / "tables" / layer).mkdir(parents=True, exist_ok=True)
    (tmp_path / "tables" / layer / f"{short}.yaml").write_text(text)
    return load_project(str(tmp_path)).tables[TableName.parse(name)]


SOURCE = "source: generator\n"


def test_everything_can_be_said(tmp_path):
    table = load(
        tmp_path,
        SOURCE + "maintain:\n  checkpoint_interval: 10\n  log_retention: 2 days\n  compact: false\n"
        "  target_file_size: 16 MB\n  z_order: [a, b]\n  deleted_file_retention: 1 day\n"
        "  quarantine_retention: 3 days\n",
    )
    assert table.maintenance == MaintenancePolicy(10, 2 * DAY_US, False, 16 << 20, ("a", "b"), DAY_US, 3 * DAY_US)


@pytest.mark.parametrize(
    ("rows", "aside", "read", "days"),
    [
        (None, None, [], 90), (5, None, [], 5), (FOREVER, None, [], None), (FOREVER, 7, [], 7), (5, 7, [], 7),
        (5, FOREVER, [], None), (5, 7, [30], 30), (50, None, [30, 40], 50), (5, 7, [None], None),
    ],
)  # fmt: skip
def test_entries_stay_as_long_as_the_rows_that_they_tell_of(rows, aside, read, days):
    def us(number):
        return number * DAY_US if number not in (None, FOREVER) else number

    kept = quarantine_retention_us(
        "bronze", us(rows), MaintenancePolicy(quarantine_retention_us=us(aside)), [us(one) for one in read]
    )
    assert kept == us(days)


@pytest.mark.parametrize(
    ("name", "text", "days"),
    [
        ("bronze.e", SOURCE, 90), ("bronze.e", SOURCE + "retention: 5 days\n", 5),
        ("bronze.e", SOURCE + "retention: forever\n", None), ("gold.q", "sql: select 1 as one\n", None),
    ],
)  # fmt: skip
def test_retention_has_a_default_by_layer(tmp_path, name, text, days):
    table = load(tmp_path, text, name)
    assert table.keeps_us == (None if days is None else days * DAY_US)
    assert table.maintenance == MaintenancePolicy()
    assert table.retention_us == {5: 5 * DAY_US, None: FOREVER if "forever" in text else None}.get(days)


@pytest.mark.parametrize(
    ("block", "code"),
    [
        ("{chekpoint_interval: 1}", "D103"), ("{checkpoint_interval: 0}", "D104"), ("{compact: 'yes'}", "D104"),
        ("{target_file_size: 64}", "D104"), ("{target_file_size: 64 XB}", "D104"),
        ("{target_file_size: 1 KB}", "D106"), ("{log_retention: soon}", "D107"),
        ("{deleted_file_retention: 1 hour}", "D117"), ("{z_order: [a, a]}", "D113"),
        ("{z_order: a}", "D104"), ("5", "D104"), ("{quarantine_retention: never}", "D107"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path, block, code):
    with pytest.raises(ProjectError) as error:
        load(tmp_path, SOURCE + f"maintain: {block}\n")
    (one,) = error.value.diagnostics
    assert (one.code, one.file, one.line) == (code, "tables/bronze/e.yaml", 2)


def test_sizes():
    assert [parse_size(text) for text in ("64 KB", "1MB", "2 GB", "0 MB", "1.5 MB", "MB")] == [
        64 << 10, 1 << 20, 2 << 30, None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(("entries", "commits"), [(0, 100), (100_000, 100), (2_400_000, 2_400)])
def test_a_commit_never_pays_for_more_than_a_thousand_entries_of_a_checkpoint(entries, commits):
    assert MaintenancePolicy().checkpoint_after(entries) == commits
    assert MaintenancePolicy(checkpoint_interval=5_000).checkpoint_after(entries) == 5_000
