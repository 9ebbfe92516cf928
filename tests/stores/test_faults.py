"""A store that answers late, twice, 429 or 503, or fails after it has written: every commit counts exactly once."""

import itertools
from urllib.parse import urlsplit

import pytest

from lodestream.errors import ConfigError, ConflictError, TransientError
from lodestream.lake.disk import put_if_absent, replace_durable
from lodestream.lake.object_disk import ObjectDisk
from lodestream.lake.opening import check_put_if_absent
from lodestream.lake.table import DeltaTable
from tests.stores.conftest import on_moto
from tests.stores.faults import FAULTS, proxied
from tests.stores.test_tables import ids, judged, make, put

COMMITS = 3


def behind(proxy, remote):
    """The lake as a client sees it that waits a second for each answer."""
    given = remote.through(f"{proxy.url}{urlsplit(remote.store['endpoint']).path}")
    given.store.update(timeout="1 second", patience="20 seconds")
    return given


@pytest.mark.parametrize("fault", FAULTS)
def test_a_commit_that_goes_wrong_on_the_way_counts_once(remote, fault):
    """The first request for every data file and every log entry meets the fault."""
    with proxied(remote.store["endpoint"]) as proxy:
        met = set()

        def first(method, path):
            path = path.partition("?")[0]
            if method != "PUT" or path in met or "/silver/" not in path:
                return None
            met.add(path)
            return fault if "_delta_log" in path or fault in ("429", "503", "twice") else None

        table = make(behind(proxy, remote))
        proxy.fault = first
        assert [put(table, number, number) for number in range(1, COMMITS + 1)] == [*range(1, COMMITS + 1)]
        assert set(proxy.done) == {fault}
        assert len(proxy.done) >= COMMITS
    table = DeltaTable.open(remote.disk(), table.path)  # after the late ones have arrived, too
    assert [commit.txns for commit in table.commits(0)] == [{"app": number} for number in range(1, COMMITS + 1)]
    assert ids(table) == sorted(judged(remote, table)["id"].to_pylist()) == [*range(1, COMMITS + 1)]


@pytest.mark.parametrize("fault", FAULTS)
def test_reads_survive(remote, fault):
    table = make(remote)
    for number in range(1, 4):
        put(table, number, number)
    with proxied(remote.store["endpoint"]) as proxy:
        turns = itertools.count()
        proxy.fault = lambda method, path: fault if method in ("GET", "HEAD") and next(turns) % 4 == 0 else None
        again = DeltaTable.open(behind(proxy, remote).disk(), table.path)
        assert ids(again) == [1, 2, 3]
        assert proxy.done


def test_two_writers_of_whom_one_never_hears_the_truth(remote):
    """Entries that another one wrote in the meantime are not taken for our own."""
    with proxied(remote.store["endpoint"]) as proxy:
        proxy.fault = lambda method, path: (
            "written, then 503" if method == "PUT" and "_delta_log" in path and next(turns) % 2 else None
        )
        turns = itertools.count()
        unlucky, lucky = make(behind(proxy, remote)), make(remote)
        for number in range(1, 5):
            put(lucky, number, 10 + number, app="lucky")
            put(unlucky, number, 20 + number, app="unlucky")
    table = DeltaTable.open(remote.disk(), lucky.path)
    assert ids(table) == [11, 12, 13, 14, 21, 22, 23, 24]
    assert table.snapshot.version == 8


def test_a_disk_that_takes_a_refusal_for_the_truth_is_caught(remote, monkeypatch):
    """Without reading back, a data file that was delivered twice is taken for another's."""
    monkeypatch.setattr(ObjectDisk, "_holds", lambda *_: False)
    with pytest.raises(ConflictError, match="data file is there"):
        test_a_commit_that_goes_wrong_on_the_way_counts_once(remote, "twice")


def test_what_arrives_late_does_not_undo_what_came_after(remote):
    path = f"{remote.lake}/note"
    with proxied(remote.store["endpoint"]) as proxy:
        disk = behind(proxy, remote).disk()
        replace_durable(disk, path, b"one")
        turns = itertools.count()
        proxy.fault = lambda method, path: "arrive late" if method == "PUT" and next(turns) == 0 else None
        replace_durable(disk, path, b"two")
        replace_durable(disk, path, b"three")
    assert proxy.done == ["arrive late"]
    assert remote.disk().read(path) == b"three"


def test_a_store_that_stays_away_is_waited_for_by_the_runtime(remote):
    with proxied(remote.store["endpoint"]) as proxy:
        given = behind(proxy, remote)
        given.store["patience"] = "1 second"
        proxy.fault = lambda method, path: "503"
        with pytest.raises(TransientError, match=r"store does not answer.*503"):
            put_if_absent(given.disk(), f"{remote.lake}/x", b"x")


def test_a_store_that_overwrites_is_refused(moto_url, tmp_path):
    """A store that passes over `If-None-Match`, as some do that only resemble S3."""
    remote = on_moto(moto_url, tmp_path)
    with proxied(remote.store["endpoint"]) as proxy:
        proxy.drops = ("if-none-match",)
        with pytest.raises(ConfigError, match=r"overwrites what it should refuse.*fix="):
            check_put_if_absent(behind(proxy, remote).disk(), remote.lake)


def test_wrong_credentials_and_places_are_named_and_no_secret_is(remote):
    given = remote.through(remote.store["endpoint"])
    given.store["patience"] = "1 second"
    missing = given.lake.replace("lakes", "nowhere", 1)
    with pytest.raises(ConfigError, match="no such container or bucket"):
        check_put_if_absent(type(given)(missing, given.root, given.store).disk(), missing)
    if "account_key" not in given.store:
        return  # moto looks at no key
    given.store["account_key"] = "c2VjcmV0LW9mLWFub3RoZXI="
    with pytest.raises(ConfigError, match="store refuses us") as refused:
        check_put_if_absent(given.disk(), given.lake)
    del given.store["account_key"]
    given.store["sas_token"] = "sv=2021-08-06&ss=b&srt=co&sp=rl&se=2020-01-01T00:00:00Z&sig=c2VjcmV0LW9m"
    with pytest.raises(ConfigError, match="store refuses us") as expired:
        check_put_if_absent(given.disk(), given.lake)
    for error in (refused, expired):
        assert "c2VjcmV0" not in str(error.value)
