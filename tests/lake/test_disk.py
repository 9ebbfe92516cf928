"""The disk of this machine: whole writes, one winner, and errors that say what to do."""

import errno
import os
import shutil
import subprocess
import sys
import threading

import pyarrow as pa
import pytest

from lodestream.errors import ConfigError, TransientError
from lodestream.lake import disk as module
from lodestream.lake.disk import LocalDisk, put_if_absent, replace_durable, settle, write_durable
from lodestream.lake.table import DeltaTable
from lodestream.testing.faults import RecordingDisk


def failing(code):
    def call(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("data", [b"", b"abc", memoryview(b"abc"), pa.py_buffer(b"abc"), memoryview(b"abcd").cast("H")])
def test_writes_what_it_is_given(tmp_path, data):
    disk = LocalDisk()
    path = str(tmp_path / "a" / "b" / "f")
    write_durable(disk, path, data)
    assert disk.read(path) == bytes(memoryview(data))
    assert disk.size(path) == len(bytes(memoryview(data)))
    assert disk.exists(path)
    assert disk.list(str(tmp_path / "a" / "b")) == ["f"]


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(module.os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
    disk = LocalDisk()
    disk.write(str(tmp_path / "f"), b"0123456789")
    assert disk.read(str(tmp_path / "f")) == b"0123456789"


def test_a_write_takes_the_place_of_a_longer_one(tmp_path):
    disk = LocalDisk()
    disk.write(str(tmp_path / "f"), b"0123456789")
    disk.write(str(tmp_path / "f"), b"01")
    assert disk.read(str(tmp_path / "f")) == b"01"
    replace_durable(disk, str(tmp_path / "f"), b"new")
    assert disk.read(str(tmp_path / "f")) == b"new"
    assert disk.list(str(tmp_path)) == ["f"]


def test_the_umask_is_respected(tmp_path):
    old = os.umask(0o027)
    try:
        LocalDisk().write(str(tmp_path / "f"), b"")
    finally:
        os.umask(old)
    assert os.stat(tmp_path / "f").st_mode & 0o777 == 0o640


def test_one_of_many_puts_wins(tmp_path):
    path = str(tmp_path / "new" / "plan")
    made = []
    threads = [
        threading.Thread(target=lambda n=n: made.append((put_if_absent(LocalDisk(), path, str(n).encode()), n)))
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [n for won, n in made if won]
    assert len(winners) == 1
    assert LocalDisk().read(path) == str(winners[0]).encode()
    assert LocalDisk().list(str(tmp_path / "new")) == ["plan"]


def test_a_full_disk_is_worth_waiting_for(tmp_path, monkeypatch):
    disk = LocalDisk()
    real = os.write
    calls = []

    def once(fd, data):
        calls.append(1)
        return real(fd, bytes(data)[:5]) if len(calls) == 1 else failing(errno.ENOSPC)()

    monkeypatch.setattr(module.os, "write", once)
    with pytest.raises(TransientError, match=r"disk is full.*path="):
        put_if_absent(disk, str(tmp_path / "f"), b"0123456789")
    assert disk.list(str(tmp_path)) == []


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_read_only_lake_is_a_matter_of_configuration(tmp_path, monkeypatch, code):
    monkeypatch.setattr(module.os, "open", failing(code))
    with pytest.raises(ConfigError, match=r"may not write here.*fix="):
        LocalDisk().write(str(tmp_path / "f"), b"x")


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_without_links_files_are_renamed_and_nothing_is_overwritten(tmp_path, monkeypatch, code):
    monkeypatch.setattr(module.os, "link", failing(code))
    path = str(tmp_path / "f")
    assert put_if_absent(LocalDisk(), path, b"first")
    assert not put_if_absent(LocalDisk(), path, b"second")
    assert (LocalDisk().read(path), LocalDisk().list(str(tmp_path))) == (b"first", ["f"])


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_links_and_exclusive_renames_is_refused(tmp_path, monkeypatch, code):
    monkeypatch.setattr(module.os, "link", failing(errno.EPERM))
    monkeypatch.setattr(module, "_rename_exclusively", failing(code))
    with pytest.raises(ConfigError, match=r"neither link files nor rename.*fix="):
        put_if_absent(LocalDisk(), str(tmp_path / "f"), b"x")
    assert LocalDisk().list(str(tmp_path)) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_writers_on_a_file_system_without_links_make_one_table(tmp_path):
    """The kernel refuses every link to these processes, as vfat, exfat and many a mounted folder do."""
    code = f"""
import sys, uuid
import pyarrow as pa
from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable
from lodestream.model.types import BIGINT, Column, Schema
table = DeltaTable.create(
    LocalDisk(), {str(tmp_path / "t")!r}, Schema((Column("id", BIGINT),)), table_id="t", clock_us=1
)
for number in range(10):
    staged = table.stage(pa.table({{"id": [number]}}), name=uuid.uuid4().hex)
    table.commit(adds=staged.adds, txn=(sys.argv[1], number), clock_us=1)
"""
    refuse = "link,linkat:error=EPERM"
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=link,linkat", "-e", f"inject={refuse}"]
    writers = [subprocess.Popen([*command, sys.executable, "-c", code, name]) for name in "abc"]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    table = DeltaTable.open(LocalDisk(), str(tmp_path / "t"))
    assert table.snapshot.version == 30
    assert sorted(table.read(table.files())["id"].to_pylist()) == sorted([*range(10)] * 3)
    assert {os.stat(tmp_path / "t" / "_delta_log" / f"{n:020d}.json").st_nlink for n in range(31)} == {1}
    assert not [name for name in os.listdir(tmp_path / "t" / "_delta_log") if name.startswith(".tmp")]


def test_a_failed_sync_is_no_success(tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, "fsync", failing(errno.EIO))
    with pytest.raises(TransientError, match="file system failed"):
        write_durable(LocalDisk(), str(tmp_path / "f"), b"x")


def test_missing_things(tmp_path):
    disk = LocalDisk()
    assert disk.list(str(tmp_path / "none")) == []
    assert not disk.exists(str(tmp_path / "none"))
    for call in (disk.read, disk.unlink, disk.size, disk.fsync):
        with pytest.raises(FileNotFoundError):
            call(str(tmp_path / "none"))


def test_folders_found_are_synced_once_per_disk(tmp_path):
    """A process that was killed may have made them without a sync."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    disk = RecordingDisk(LocalDisk(), str(tmp_path))
    settle(disk, str(tmp_path / "a" / "b"))
    assert [(e.kind, e.path) for e in disk.record] == [("sync_directory", "a"), ("sync_directory", "")]
    settle(disk, str(tmp_path / "a" / "b"))
    assert len(disk.record) == 2


def test_a_folder_taken_away_is_made_again(tmp_path):
    disk = LocalDisk()
    write_durable(disk, str(tmp_path / "a" / "f"), b"1")
    shutil.rmtree(tmp_path / "a")
    write_durable(disk, str(tmp_path / "a" / "f"), b"2")
    assert disk.read(str(tmp_path / "a" / "f")) == b"2"


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "none", folder], check=False).returncode
    ):
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk(small_disk):
    disk = LocalDisk()
    with pytest.raises(TransientError, match="disk is full"):
        write_durable(disk, str(small_disk / "big"), b"x" * 1_000_000)
    assert disk.list(str(small_disk)) == []
    write_durable(disk, str(small_disk / "fits"), b"x" * 1000)


def test_a_really_read_only_disk(small_disk):
    disk = LocalDisk()
    write_durable(disk, str(small_disk / "f"), b"1")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert disk.read(str(small_disk / "f")) == b"1"
    with pytest.raises(ConfigError, match="may not write here"):
        write_durable(disk, str(small_disk / "g"), b"1")
