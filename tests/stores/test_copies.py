"""Copies of data files on this machine: made once, bounded, never of half a file."""

import os
import threading
from pathlib import Path

import pytest

from lodestream.errors import TransientError
from lodestream.lake.copies import Copies

MIB = 1 << 20


class Store:
    def __init__(self):
        self.fetched = []

    def fetch(self, path, file):
        self.fetched.append(path)
        if path == "missing":
            raise FileNotFoundError(2, "no such file", path)
        file.write(path.encode() * (MIB // 2 // len(path)))
        if path == "halfway":
            raise TransientError("store does not answer")


def pairs(folder, *names):
    return [(name, str(folder / "silver" / "t" / f"{name}.parquet")) for name in names]


def age(path, seconds):
    told = os.stat(path)
    os.utime(path, (told.st_atime, told.st_mtime - seconds))


def test_a_copy_is_made_once_and_whole(tmp_path):
    store = Store()
    copies = Copies(str(tmp_path), 100 * MIB, store.fetch)
    wanted = pairs(tmp_path, *map(str, range(20)))
    copies.have(wanted)
    Copies(str(tmp_path), 100 * MIB, store.fetch).have(wanted)
    assert sorted(store.fetched) == sorted(name for name, _ in wanted)
    for name, path in wanted:
        assert Path(path).read_bytes()[: len(name)] == name.encode()


@pytest.mark.parametrize(("name", "error"), [("missing", FileNotFoundError), ("halfway", TransientError)])
def test_what_cannot_be_fetched_leaves_nothing(tmp_path, name, error):
    copies = Copies(str(tmp_path), 100 * MIB, Store().fetch)
    with pytest.raises(error):
        copies.have(pairs(tmp_path, "good", name))
    assert os.listdir(tmp_path / "silver" / "t") == ["good.parquet"]


def test_the_ones_not_used_for_longest_go_and_those_just_asked_for_stay(tmp_path):
    store = Store()
    copies = Copies(str(tmp_path), 2 * MIB, store.fetch)
    old = pairs(tmp_path, "a", "b", "c", "d")
    copies.have(old)
    for number, (_, path) in enumerate(old):
        age(path, 3600 - number)
    copies.have(old[:1])
    copies.have(pairs(tmp_path, "e", "f"))
    assert sorted(os.listdir(tmp_path / "silver" / "t")) == ["a.parquet", "d.parquet", "e.parquet", "f.parquet"]
    copies.have(pairs(tmp_path, *"ghijklmnop"))
    assert len(os.listdir(tmp_path / "silver" / "t")) == 13, "more than the bound, as all were asked for just now"
    (tmp_path / "catalog.db").write_bytes(b"x")
    for name in os.listdir(tmp_path / "silver" / "t"):
        age(tmp_path / "silver" / "t" / name, 3600)
    copies.have(pairs(tmp_path, "q"))
    assert len(os.listdir(tmp_path / "silver" / "t")) == 4
    assert (tmp_path / "catalog.db").exists()


def test_two_processes_may_fetch_the_same(tmp_path):
    both = threading.Barrier(2)

    def fetch(path, file):
        both.wait(10)
        file.write(path.encode())

    wanted = pairs(tmp_path, "a")
    threads = [threading.Thread(target=Copies(str(tmp_path), MIB, fetch).have, args=(wanted,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.listdir(tmp_path / "silver" / "t") == ["a.parquet"]
