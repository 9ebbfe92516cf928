"""delta-sharing against a served project: what each may list, read and go back to, and what is refused."""

import base64
import contextlib
import datetime as dt
import json
import time
from dataclasses import replace
from decimal import Decimal

import httpx
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from lodestream.apis.problems import ProblemError
from lodestream.apis.routing import application
from lodestream.apis.secrets import secret_of
from lodestream.apis.sharing.links import SIGNATURE, Link, Links
from lodestream.apis.sharing.part import sharing_part
from lodestream.app import now_us
from lodestream.catalog.audit_table import Wanted
from lodestream.lake.actions import RemoveFile
from lodestream.lake.disk import LocalDisk
from lodestream.lake.layout import sharing_path
from lodestream.lake.statistics import statistics
from lodestream.model.access import Principal
from lodestream.model.table import TableName
from lodestream.model.types import Column, Schema, parse_type
from lodestream.query.service import OWNER, QueryService
from lodestream.security.keys import KeyStore
from tests.apis.gates import Gate
from tests.apis.paths import TRAVERSALS, url_path
from tests.apis.rest.conftest import POLICIES, TOKEN, append, make, orders, serving, write_lake
from tests.apis.sharing.peer import SharingError, profile

ROOT = "/delta-sharing/shares/shop/schemas/gold/tables/orders"
NAME = TableName("gold", "orders")
FORMS = [pytest.param(False, id="parquet"), pytest.param(True, id="delta"), pytest.param(None, id="auto")]
CHANGED = (
    ("  oscar: {}\n", "  oscar: {}\n  carol: {}\n  dora: {}\n"),
    ("row_filters:\n", "  - {to: carol, select: [gold.orders, silver.notes]}\n"
     "  - {to: dora, select: [gold], quarantine: [gold]}\nrow_filters:\n"),
    ("attribute('country')\"}", "attribute('country')\", except: [carol]}"),
    ("with: \"'***'\"}", "with: \"'***'\", except: [carol]}"),
)  # fmt: skip
"""The policies of REST's tests, with carol whom none binds, and dora who may read all of gold."""


def write_shop(folder):
    table, notes = write_lake(folder)
    text = POLICIES
    for old, new in CHANGED:
        assert old in text
        text = text.replace(old, new)
    (folder / "policies.yaml").write_text(text)
    return table, notes


@contextlib.contextmanager
def served(folder):
    table, notes = write_shop(folder)
    with serving(folder, table, notes) as running:
        for name in ("carol", "dora"):
            running.keys[name] = running.key(name)[0]
        running.folder = folder
        running.profiles = {name: profile(folder, running.url, key, name) for name, key in running.keys.items()}
        yield running


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with served(tmp_path_factory.mktemp("sharing") / "shop") as running:
        yield running


@pytest.fixture
def fresh_lake(tmp_path):
    with served(tmp_path / "shop") as running:
        yield running


def iso(ms):
    return (dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=ms)).isoformat(timespec="milliseconds") + "Z"


def query(shop, who="owner", table="orders", schema="gold", headers=None, **asked):
    """The files that a query gives, in the Parquet format."""
    path = f"/delta-sharing/shares/shop/schemas/{schema}/tables/{table}/query"
    found = shop.post(path, who, json=asked, headers=headers)
    assert found.status_code == 200, found.text
    return [json.loads(line)["file"] for line in found.text.splitlines()[2:]]


def refused(found, status, code, *words):
    assert found.status_code == status
    assert found.headers["content-type"] == "application/json"
    told = found.json()
    assert set(told) == {"errorCode", "message"}
    assert told["errorCode"] == code
    assert all(word in told["message"] for word in words), told


def test_everybody_lists_what_they_can_have(shop, client):
    def lists(who):
        return client.ask(shop.profiles[who], "lists")

    every = ["gold.orders", "gold.orders__quarantine", "gold.secret", "silver.notes", "silver.notes__quarantine"]
    assert lists("owner") == [["shop"], [("shop", "gold"), ("shop", "silver")], every]
    assert lists("carol") == [["shop"], [("shop", "gold"), ("shop", "silver")], ["gold.orders", "silver.notes"]]
    assert lists("alice") == [["shop"], [("shop", "silver")], ["silver.notes"]]  # a row filter binds her on orders
    assert lists("dora")[2] == ["gold.secret"]
    assert lists("quinn")[2] == ["silver.notes__quarantine"]
    assert lists("bob") == [[], [], []]
    found = client.ask(shop.profiles["owner"], "tables_of", share="shop", schema="silver")
    assert found == ["notes", "notes__quarantine"]


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_those_of_the_table(shop, client, form):
    names, rows = client.ask(shop.profiles["carol"], "rows", table="shop.gold.orders", use_delta_format=form)
    wanted = orders(0, 300).to_pylist()
    assert names == list(wanted[0])
    assert sorted(rows, key=lambda row: row["id"]) == wanted
    assert rows[0]["amount"] == Decimal(rows[0]["id"]) / 4


@pytest.mark.parametrize("form", FORMS)
def test_limits_and_versions(shop, client, form):
    def count(**given):
        return len(
            client.ask(shop.profiles["carol"], "rows", table="shop.gold.orders", use_delta_format=form, **given)[1]
        )

    assert count(limit=7) == 7
    assert count(limit=150) == 150
    assert count(limit=0) == 0
    assert [count(version=version) for version in range(4)] == [0, 100, 200, 300]
    with pytest.raises(SharingError, match=r"(?s)400.*no such version"):
        count(version=9)


def test_times_find_versions(shop, client):
    made = [commit.timestamp_ms for commit in shop.orders.commits(-1)]
    profiled = shop.profiles["carol"]
    for form in (False, True):
        rows = client.ask(profiled, "rows", table="shop.gold.orders", timestamp=iso(made[2]), use_delta_format=form)[1]
        assert len(rows) == (300 if made[3] == made[2] else 200)
    assert client.ask(profiled, "version", table="shop.gold.orders") == 3
    assert client.ask(profiled, "version", table="shop.gold.orders", starting_timestamp="2001-01-01T00:00:00Z") == 0
    found = client.ask(profiled, "version", table="shop.gold.orders", starting_timestamp=iso(made[1]))
    assert made[found] == made[1]
    assert client.ask(profiled, "version", table="shop.gold.orders", starting_timestamp=iso(made[2] - 1)) in (1, 2)
    with pytest.raises(SharingError, match="400"):
        client.ask(profiled, "version", table="shop.gold.orders", starting_timestamp=iso(made[3] + 1000))
    with pytest.raises(SharingError, match=r"(?s)400.*no version of the table at that time"):
        client.ask(profiled, "rows", table="shop.gold.orders", timestamp="2001-01-01T00:00:00Z", use_delta_format=True)


@pytest.mark.parametrize("form", [False, True])
def test_metadata(shop, client, form):
    told = client.ask(shop.profiles["carol"], "metadata", table="shop.gold.orders", use_delta_format=form)
    assert told[0] == "id-gold.orders"
    assert [one["name"] for one in told[1]["fields"]] == list(orders(0, 0).column_names)
    assert client.ask(shop.profiles["carol"], "protocol", table="shop.gold.orders", use_delta_format=form) == 1


def test_our_own_properties_stay_here(fresh_lake):
    shop = fresh_lake
    table = make(str(shop.app.lake), "gold.told", {"id": "bigint"})
    properties = {"delta.appendOnly": "false", "lodestream.secret": "x"}
    table.commit(metadata=replace(table.snapshot.metadata, configuration=properties), clock_us=now_us())
    text = shop.get("/delta-sharing/shares/shop/schemas/gold/tables/told/metadata").text
    assert json.loads(text.splitlines()[1])["metaData"]["configuration"] == {"delta.appendOnly": "false"}
    assert "lodestream" not in text


def test_hints_leave_out_files_without_such_rows(fresh_lake):
    table = make(str(fresh_lake.app.lake), "gold.plain", {"id": "bigint", "seen": "timestamp", "day": "date"})
    for part in range(3):  # ids 0-99, 100-199, 200-299, with statistics as compaction writes them
        staged = table.stage(orders(part * 100, 100).select(["id", "seen", "day"]), name=f"{part}")
        table.commit(adds=[replace(staged.adds[0], stats=statistics(staged.rows))], clock_us=now_us())

    def count(*tree, **asked):
        told = {"jsonPredicateHints": json.dumps(tree[0])} if tree else {}
        return len(query(fresh_lake, table="plain", **told, **asked))

    assert count() == 3
    wanted = (((5, 9), 1), ((99, 100), 2), ((0, 500), 3), ((300, 400), 0))
    assert [count(between("id", *pair)) for pair, _ in wanted] == [files for _, files in wanted]
    assert count({"op": "or", "children": [between("id", 5, 9), between("id", 205, 209)]}) == 2
    assert count({"op": "not", "children": [between("id", 5, 9)]}) == 3  # not understood
    assert count({"op": "isNull", "children": [{"op": "column", "name": "id", "valueType": "long"}]}) == 0
    assert count(between("nothing", 5, 9)) == 3
    for odd in ("", "{", "[]", '{"op": "equal"}', '{"op": "equal", "children": [1, 2]}', '"x"', "null"):
        assert count(jsonPredicateHints=odd) == 3
    assert count(predicateHints=["id >= 250", "id < 260"]) == 1
    assert count(between("id", 150, 299), predicateHints=["id < 250"]) == 2
    for odd in ("id = 5 OR id = 250", "id = ", "1=1) UNION SELECT 1 FROM t WHERE (id = 5", "id = 5 AND day > 'a\\\\b'",
                "seen > '2100-01-01 00:00:00'", "id = \"x\""):  # fmt: skip
        assert count(predicateHints=[odd]) == 3, odd
    assert [count(limitHint=rows) for rows in (0, 50, 100, 101)] == [0, 1, 1, 2]
    assert count(limitHint=50, predicateHints=["id >= 0"]) == 3


def between(column, first, last):
    def compared(op, value):
        return {"op": op, "children": [{"op": "column", "name": column, "valueType": "long"},
                                       {"op": "literal", "value": str(value), "valueType": "long"}]}  # fmt: skip

    return {"op": "and", "children": [compared("greaterThanOrEqual", first), compared("lessThanOrEqual", last)]}


@pytest.mark.parametrize("form", [False, True], ids=["parquet", "delta"])
def test_changes(fresh_lake, client, form):
    shop, told = fresh_lake, profile(fresh_lake.folder, fresh_lake.url, fresh_lake.keys["owner"])
    table = make(str(shop.app.lake), "gold.moved", {"id": "bigint", "part": "string"}, ("part",))
    append(table, pa.table({"id": [1, 2], "part": ["a b", "c"]}), "1")
    append(table, pa.table({"id": [3], "part": ["a b"]}), "2")
    gone = [add for add in table.files() if add.partition_values["part"] == "c"]
    table.commit(removes=[RemoveFile.of(one) for one in gone], clock_us=now_us())
    table.commit(removes=[RemoveFile.of(table.files()[0])], clock_us=now_us(), operation="RETENTION")

    def changes(**given):
        _, rows = client.ask(told, "changes", table="shop.gold.moved", use_delta_format=form, **given)
        return sorted((row["_commit_version"], row["_change_type"], row["id"], row["part"]) for row in rows)

    every = [(1, "insert", 1, "a b"), (1, "insert", 2, "c"), (2, "insert", 3, "a b"), (3, "delete", 2, "c")]
    assert changes(starting_version=0) == every
    assert changes(starting_version=2) == every[2:]
    assert changes(starting_version=1, ending_version=2) == every[:3]
    path = "/delta-sharing/shares/shop/schemas/gold/tables/moved/changes"
    for given in ("", "?startingVersion=9", "?startingVersion=x", "?startingVersion=3&endingVersion=1",
                  "?startingVersion=1&startingTimestamp=2001-01-01T00:00:00Z"):  # fmt: skip
        refused(shop.get(path + given), 400, "INVALID_PARAMETER_VALUE")
    wider = Schema((*table.snapshot.metadata.schema.columns, Column("more", parse_type("int"))))
    table.commit(metadata=replace(table.snapshot.metadata, schema=wider), clock_us=now_us())
    refused(shop.get(f"{path}?startingVersion=1"), 400, "INVALID_PARAMETER_VALUE", "version 5 changed")
    assert shop.get(f"{path}?startingVersion=5").status_code == 200


def test_lists_come_in_pages(shop):
    for path in ("/shares/shop/all-tables", "/shares/shop/schemas/gold/tables", "/shares/shop/schemas", "/shares"):
        whole = shop.get(f"/delta-sharing{path}").json()
        assert "nextPageToken" not in whole
        found, token = [], None
        while True:
            page = shop.get(f"/delta-sharing{path}", params={"maxResults": 1} | ({"pageToken": token} if token else {}))
            found += page.json()["items"]
            if (token := page.json().get("nextPageToken")) is None:
                break
        assert found == whole["items"] != []
    nothing = shop.get("/delta-sharing/shares?maxResults=0").json()
    assert nothing["items"] == []
    assert shop.get("/delta-sharing/shares", params={"pageToken": nothing["nextPageToken"]}).json()["items"]
    for odd in ("maxResults=x", "maxResults=-1", "pageToken=zz", "pageToken=WzFd", "pageToken=%ff"):
        refused(shop.get(f"/delta-sharing/shares?{odd}"), 400, "INVALID_PARAMETER_VALUE")


def test_who_may_not_read_all_of_a_table_gets_no_file_of_it(shop, client):
    for who in ("alice", "dora"):
        for found in (shop.get(f"{ROOT}/metadata", who), shop.post(f"{ROOT}/query", who, json={}),
                      shop.get(f"{ROOT}/version", who),
                      shop.get(f"{ROOT}/changes?startingVersion=0", who)):  # fmt: skip
            refused(found, 403, "PERMISSION_DENIED", "a row filter binds you", "SQL or over REST")
    refused(shop.get(f"{ROOT}/metadata", "mia"), 403, "PERMISSION_DENIED", "may not read")
    with pytest.raises(SharingError, match=r"(?s)403.*row filter"):
        client.ask(shop.profiles["alice"], "rows", table="shop.gold.orders")
    hidden = shop.post(f"{ROOT}/query", "bob", json={})
    missing = shop.post(f"{ROOT.replace('orders', 'nothing')}/query", "bob", json={})
    refused(hidden, 404, "RESOURCE_DOES_NOT_EXIST")
    assert hidden.json() == missing.json()
    refused(shop.get("/delta-sharing/shares/other/schemas"), 404, "RESOURCE_DOES_NOT_EXIST", "no such share")
    assert "row_filter:own_country" in recorded(shop, Wanted("alice", "read", "gold.orders", "refused", None, 1)).told


def recorded(shop, wanted):
    """The newest record; they are on disk within a moment."""
    for _ in range(200):
        if found := shop.app.audit.records(wanted):
            return found[0]
        time.sleep(0.05)
    raise AssertionError(wanted)


def test_what_is_given_is_in_the_audit_log_and_in_lineage(shop):
    query(shop, "carol", version=2)
    told = json.loads(recorded(shop, Wanted("carol", "read", "gold.orders@2", "allowed", None, 1)).told)
    assert (told["door"], told["objects"], told["detail"]) == ("sharing", ["gold.orders@2"], {"files": 2})
    readers = shop.app.audit.readers({NAME: shop.orders.snapshot.metadata.schema})
    assert {NAME: None} in [one.reads for one in readers if (one.kind, one.name) == ("principal", "carol")]


def test_credentials(shop, client):
    bad = profile(shop.folder, shop.url, "ls_prod_000000000000_x", "bad")
    with pytest.raises(SharingError, match=r"(?s)401.*UNAUTHENTICATED"):
        client.ask(bad, "lists")
    refused(shop.get("/delta-sharing/shares", None), 401, "UNAUTHENTICATED")
    counts, _ = shop.key("alice", "metrics:read")
    refused(shop.get("/delta-sharing/shares", counts), 403, "PERMISSION_DENIED", "scope")


def fetch(url, **headers):
    return httpx.get(url, headers=headers, verify=False)


def test_addresses_are_good_for_one_file_only_and_need_no_key(shop):
    url = query(shop, "carol", version=1)[0]["url"]
    whole = fetch(url)
    assert whole.content[:4] == whole.content[-4:] == b"PAR1"
    assert httpx.head(url, verify=False).headers["content-length"] == str(len(whole.content))
    part = fetch(url, range="bytes=2-5")
    assert (part.status_code, part.content) == (206, whole.content[2:6])
    assert part.headers["content-range"] == f"bytes 2-5/{len(whole.content)}"
    assert fetch(url, range="bytes=-4").content == b"PAR1"
    assert fetch(url, range="bytes=999999999-").status_code == 416
    path, _, given = url.partition("?")
    root, _, ticket = path.rpartition("/")
    signature = given.partition(f"{SIGNATURE}=")[2]
    told = json.loads(base64.urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4)))
    assert told[0] == "gold.orders"
    forged = [("gold.secret", *told[1:]), (*told[:2], told[2] + 1, *told[3:]), (*told[:3], "owner", "owner", *told[5:])]
    forged += [(told[0], "../../../lodestream.yaml", *told[2:]), (told[0], "%2e%2e/secret/x.parquet", *told[2:])]
    for one in forged:
        other = base64.urlsafe_b64encode(json.dumps(one, separators=(",", ":")).encode()).decode().rstrip("=")
        refused(fetch(f"{root}/{other}?{given}"), 403, "PERMISSION_DENIED", "nobody was given")
    for odd in (path, f"{path}?{SIGNATURE}=", f"{path}?{SIGNATURE}={'0' * 64}", f"{path}?{SIGNATURE}=é",
                f"{path}?x-amz-signature={signature}", f"{path}A?{given}"):  # fmt: skip
        refused(fetch(odd), 403, "PERMISSION_DENIED", "nobody was given")
    for text in TRAVERSALS[::7]:
        if "#" not in text and "?" not in text:
            status, body = shop.raw("GET", f"/delta-sharing/files/{url_path(text)}?{given}", "nobody")
            assert status in (400, 403, 404), text
            assert "root:" not in body


def test_a_signed_address_that_leaves_its_table_is_refused(shop):
    """Not even a log that was changed by hand leads out."""
    links = Links(secret_of(sharing_path(shop.app.home)), now_us)
    who = Principal("dev", "owner", via=shop.app.gate(shop.app.serving(), TOKEN).identity.by_text(TOKEN, None).via)
    good = query(shop)[0]
    assert fetch(good["url"]).status_code == 200
    for path in ("../../../lodestream.yaml", "%2e%2e/%2e%2e/x", "/etc/passwd", "file:///etc/passwd", "a/../../x", ""):
        link = Link(NAME, path, who, now_us() + 10**9)
        found = fetch(f"{shop.url}/delta-sharing/files/{links.write(link)}")
        assert found.status_code in (404, 500), path
        assert set(found.json()) == {"errorCode", "message"}
    gone = fetch(f"{shop.url}/delta-sharing/files/{links.write(Link(NAME, 'gone.parquet', who, now_us() + 10**9))}")
    refused(gone, 404, "RESOURCE_DOES_NOT_EXIST", "not there any more")


def test_addresses_end():
    now = [10**15]
    links = Links(b"k" * 32, lambda: now[0])
    who = Principal("ann", scopes=("query:*",), via="key:1", expires_us=None)
    text = links.write(Link(NAME, "x.parquet", who, links.until_us(who)))
    ticket, signature = text.split("?")[0], text.rpartition("=")[2]
    assert links.read(ticket, signature) == Link(NAME, "x.parquet", who, 10**15 + 3600 * 10**6)
    now[0] += 3600 * 10**6
    with pytest.raises(ProblemError, match="has ended"):
        links.read(ticket, signature)
    with pytest.raises(ProblemError, match="nobody was given"):
        Links(b"j" * 32, lambda: 0).read(ticket, signature)
    soon = replace(who, expires_us=now[0] + 5)
    assert links.until_us(soon) == now[0] + 5


def test_addresses_end_with_the_right_to_read(fresh_lake):
    shop = fresh_lake
    policies = shop.folder / "policies.yaml"
    text = policies.read_text()
    url = query(shop, "carol")[0]["url"]
    notes = query(shop, "carol", "notes", "silver")[0]["url"]
    assert fetch(url).status_code == fetch(notes).status_code == 200
    policies.write_text(
        text.replace("{to: carol, select: [gold.orders, silver.notes]}", "{to: carol, select: [gold.orders]}")
    )
    refused(eventually(lambda: fetch(notes), 404), 404, "RESOURCE_DOES_NOT_EXIST")
    policies.write_text(text.replace("except: [carol]", "except: [dora]"))
    refused(eventually(lambda: fetch(url), 403), 403, "PERMISSION_DENIED", "a row filter binds you")
    policies.write_text(text)
    assert eventually(lambda: fetch(url), 200).status_code == 200
    store = KeyStore(shop.app.keys_path)
    (key,) = [one for one in store.listed() if one.name == "carol"]
    store.change(key.id, revoked_us=now_us())
    refused(fetch(url), 403, "PERMISSION_DENIED", "may not come in")


def eventually(ask, status):
    """What is asked again until it has a status: servers see changed policies within a moment."""
    for _ in range(200):
        if (found := ask()).status_code == status:
            return found
        time.sleep(0.05)
    return found


def test_refusals_have_the_form_of_the_protocol(shop):
    for body in ({"version": -1}, {"version": 1, "timestamp": "x"}, {"timestamp": "yesterday"}, {"limitHint": "x"},
                 {"startingVersion": 1}):  # fmt: skip
        refused(shop.post(f"{ROOT}/query", json=body), 400, "INVALID_PARAMETER_VALUE")
    text = shop.post(f"{ROOT}/query", content=b"x", headers={"content-type": "text/plain"})
    refused(text, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert query(shop, maxFiles=1, idempotencyKey="x")  # what is not known is passed over
    assert shop.get("/delta-sharing/nothing").status_code == 404
    assert (
        shop.get("/delta-sharing/shares/SHOP/schemas/GOLD/tables/Orders/version").headers["delta-table-version"] == "3"
    )


@pytest.mark.parametrize(
    ("capabilities", "form"),
    [
        (None, "parquet"), ("", "parquet"), ("responseformat=parquet", "parquet"), ("responseformat=delta", "delta"),
        ("responseformat=delta,parquet;readerfeatures=deletionvectors", "delta"), ("readerfeatures=delta", "parquet"),
        ("readerfeatures=x; ResponseFormat = Parquet , Delta", "delta"), ("responseformat", "parquet"),
    ],
)  # fmt: skip
def test_the_format_is_one_that_the_client_knows(shop, capabilities, form):
    headers = {} if capabilities is None else {"delta-sharing-capabilities": capabilities}
    found = shop.get(f"{ROOT}/metadata", headers=headers)
    assert found.headers["delta-sharing-capabilities"] == f"responseformat={form}"
    assert found.headers["content-type"].startswith("application/x-ndjson")
    assert ("deltaMetadata" in found.text) == (form == "delta")


class Behind(Gate):
    """A gate behind a proxy that ends TLS."""

    def secure(self, request):
        return request.headers.get("x-forwarded-proto") == "https"

    def current(self, principal):
        return self.known.get(principal.name)


@pytest.mark.parametrize("proto", ["https", "http"])
def test_addresses_are_where_the_client_came_in(tmp_path, proto):
    lake = str(tmp_path / "lake")
    append(make(lake, "gold.orders", {"id": "bigint"}), pa.table({"id": [1]}), "1")
    gate = Behind({"owner": OWNER})
    app = application([sharing_part(QueryService(LocalDisk(), lake), gate, "shop", now_us)], gate)
    with TestClient(app, base_url="http://lake.example:8443") as asking:
        headers = {"x-name": "owner", "x-forwarded-proto": proto}
        found = asking.post(f"{ROOT}/query", json={}, headers=headers)
        url = json.loads(found.text.splitlines()[2])["file"]["url"]
        assert url.startswith(f"{proto}://lake.example:8443/delta-sharing/files/")
        assert asking.get(url).content[:4] == b"PAR1"
        gate.known.clear()
        refused(asking.get(url), 403, "PERMISSION_DENIED", "may not come in")
