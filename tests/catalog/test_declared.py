"""What a project declares reaches the catalog, and what people said at run time stays."""

import threading
import time

import pytest

from lodestream.app import open_project
from lodestream.catalog import store
from lodestream.catalog.entries import entry
from lodestream.catalog.follow import Follower
from lodestream.errors import AccessError
from lodestream.model.access import Principal
from lodestream.model.policy import Grant
from lodestream.model.table import TableName
from lodestream.model.types import STRING, Column
from lodestream.project.mistakes import ProjectError
from tests.catalog.conftest import reader

FILES = {
    "lodestream.yaml": "project: shop\n",
    "tables/bronze/people.yaml": (
        "source: {files: {path: data}}\nformat: json\ncolumns: {id: bigint, email: string}\nkeep_raw: true\n"
    ),
    "tables/silver/people.yaml": "from: stream(bronze.people)\nderive: {mail: lower(email)}\nselect: [id, mail]\n",
    "tables/gold/mails.yaml": "sql: select mail as contact, count(*) as n from silver.people group by mail\n",
    "policies.yaml": "users: {alice: {groups: [a]}}\ngrants:\n  - {to: group:a, select: [gold]}\n",
}
GOLD, SILVER, BRONZE = TableName("gold", "mails"), TableName("silver", "people"), TableName("bronze", "people")


@pytest.fixture
def shop(tmp_path):
    """A project, and a way to change its policies."""

    def write(policies=None):
        files = FILES if policies is None else {**FILES, "policies.yaml": policies}
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return open_project(str(tmp_path))

    return write


def alice(catalog):
    return catalog.principal("alice") or Principal("alice")


def origins(catalog, kind):
    return {(e.name, e.origin) for e in catalog.entries(kind)}


def test_declared_policies_are_replaced_as_a_set_and_others_stay(shop):
    app = shop()
    app.apply()
    assert app.catalog.visible(alice(app.catalog), [GOLD, SILVER]) == [GOLD]
    with app.catalog.changing(_event()) as (rows, at):
        store.put(rows, entry(Grant("bob", "select", "silver"), who="root", at_us=at))
    before = {e.name: e.at_us for e in app.catalog.entries("user")}
    app = shop(FILES["policies.yaml"].replace("select: [gold]", "select: [silver]"))
    assert app.policy_changes() == ["grant select on silver to group:a: new", "grant select on gold to group:a: gone"]
    app.apply()
    assert app.policy_changes() == []
    assert app.catalog.visible(alice(app.catalog), [GOLD, SILVER]) == [SILVER]
    assert app.catalog.visible(reader("bob"), [GOLD, SILVER]) == [SILVER]
    assert origins(app.catalog, "grant") == {
        ("select on silver to group:a", "policies.yaml"), ("select on silver to bob", ""),
    }  # fmt: skip
    assert {e.name: e.at_us for e in app.catalog.entries("user")} == before  # what stays as it was keeps its time
    version = app.catalog.version()
    app.apply()
    assert app.catalog.version() == version


def _event():
    from tests.catalog.conftest import EVENT

    return EVENT


def test_plan_shows_changes_and_writes_nothing(shop, tmp_path):
    app = shop()
    assert app.policy_changes() == ["user alice: new", "grant select on gold to group:a: new"]
    assert not (tmp_path / "lake").exists()
    app.apply()
    app = shop(FILES["policies.yaml"].replace("[a]", "[a, b]"))
    assert app.policy_changes() == ["user alice: groups: [a] → [a, b]"]


def test_a_mask_is_not_baked_into_derived_tables_and_a_tag_follows_them(shop):
    """The flow writes what the column holds, and whoever may not see the column does not see what it became."""
    app = shop(
        FILES["policies.yaml"] + "tags: {pii: bronze.people.email}\ntag_policies: {pii: {mask: null, except: [eve]}}\n"
    )
    app.apply()
    schema = app.flows[GOLD].schema
    shown = dict(app.catalog.access(alice(app.catalog), GOLD, schema).columns)
    assert shown == {"contact": "CAST(NULL AS VARCHAR)", "n": None, "_batch": None}
    assert app.catalog.access(Principal("eve", groups=frozenset({"a"})), GOLD, schema).whole
    raw = dict(app.catalog.access(Principal("x", "owner"), BRONZE, app.flows[BRONZE].schema).columns)
    assert set(raw.values()) == {None}


def test_a_column_stays_as_closed_as_any_of_its_definitions_made_it(shop, tmp_path):
    policies = FILES["policies.yaml"] + "tags: {pii: bronze.people.email}\ntag_policies: {pii: {mask: null}}\n"
    shop(policies).apply()
    file = tmp_path / "tables/gold/mails.yaml"
    shop(policies)
    file.write_text("sql: select 'none' as contact, count(*) as n from silver.people\n", encoding="utf-8")
    app = open_project(str(tmp_path))
    app.apply()
    shown = dict(app.catalog.access(alice(app.catalog), GOLD, app.flows[GOLD].schema).columns)
    assert shown["contact"] == "CAST(NULL AS VARCHAR)"  # older versions hold mails
    file.write_text("sql: select count(*) as n from silver.people\n", encoding="utf-8")
    app = open_project(str(tmp_path))
    app.apply()
    old = app.flows[GOLD].schema.with_columns(Column("contact", STRING))
    assert "contact" not in dict(app.catalog.access(alice(app.catalog), GOLD, old).columns)
    file.write_text("sql: select 'none' as contact, count(*) as n from silver.people\n", encoding="utf-8")
    app = open_project(str(tmp_path))
    app.apply()
    shown = dict(app.catalog.access(alice(app.catalog), GOLD, app.flows[GOLD].schema).columns)
    assert shown["contact"] == "CAST(NULL AS VARCHAR)"
    file.unlink()
    app = open_project(str(tmp_path))
    app.apply()
    assert app.catalog.state.tags_of(GOLD, "contact") == {"pii"}  # its rows are still there


def test_a_server_takes_the_file_over_when_it_changes(shop, tmp_path):
    app = shop()
    told = []
    with app.follow_policies("rest", told.append).start():
        assert app.catalog.visible(alice(app.catalog), [GOLD, SILVER]) == [GOLD]
        shop(FILES["policies.yaml"].replace("select: [gold]", "select: [silver]"))
        wait(lambda: app.catalog.visible(alice(app.catalog), [GOLD, SILVER]) == [SILVER])
        wait(lambda: told)
        assert "policies: grant select on silver to group:a: new" in told
        told.clear()
        shop("grants:\n  - {to: group:a, select: [glod]}\n")
        wait(lambda: told)
        assert "policies.yaml:2" in told[0]
        assert "nearest='gold'" in told[0]
        assert app.catalog.visible(alice(app.catalog), [GOLD, SILVER]) == [SILVER]  # the last good ones hold
        told.clear()
        (tmp_path / "policies.yaml").unlink()
        wait(lambda: app.catalog.visible(Principal("alice", groups=frozenset("a")), [GOLD, SILVER]) == [])
    app.catalog.close()


def test_a_server_does_not_start_on_mistaken_policies(shop):
    app = shop("grants:\n  - {to: group:a, select: [glod]}\n")
    with pytest.raises(ProjectError, match="D401"):
        app.follow_policies("rest", print).start()


@pytest.mark.parametrize("where", ["postgres"], indirect=True)
def test_servers_on_several_machines_share_a_catalog_in_postgresql(shop, tmp_path, where, monkeypatch):
    monkeypatch.setenv("CATALOG_URL", where)
    shop()
    (tmp_path / "lodestream.yaml").write_text("project: shop\ncatalog: {url: '${env:CATALOG_URL}'}\n", encoding="utf-8")
    one, other = open_project(str(tmp_path)), open_project(str(tmp_path))
    one.apply()
    assert not (tmp_path / "lake/_lodestream/access/catalog.db").exists()
    assert other.catalog.visible(alice(other.catalog), [GOLD, SILVER]) == [GOLD]
    other.governing(Principal("root", "owner"), "cli").put(Grant("alice", "select", "silver"))
    wait(lambda: one.catalog.visible(alice(one.catalog), [GOLD, SILVER]) == [GOLD, SILVER])
    assert [e.origin for e in one.catalog.entries("grant")] == ["policies.yaml", ""]
    assert one.audit.verify(None).problems == ()
    for app in (one, other):
        app.catalog.close()


def test_who_is_no_longer_declared_sees_nothing(shop):
    app = shop()
    app.apply()
    app = shop("users: {}\n")
    app.apply()
    with pytest.raises(AccessError):
        app.catalog.access(Principal("alice", groups=frozenset({"a"})), GOLD, app.flows[GOLD].schema)


def wait(holds, seconds=30):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def test_a_file_that_is_still_being_written_is_left_alone(monkeypatch):
    states = [0, 1, 2, 3, 3, 4, 5, 5, 5]
    left, taken = list(states), []
    looked = threading.Event()

    def look(_self):
        if len(left) == 1:
            looked.set()
            return left[0]
        return left.pop(0)

    monkeypatch.setattr(Follower, "_look", look)
    with Follower("policies.yaml", lambda: taken.append(left[0]) or [], print, every_s=0.001).start():
        assert looked.wait(30)
    assert taken[1:] == [4, 5]  # the first is taken at once; then what comes after 3, 3 and after 5, 5
