"""Whatever the power takes, the log has every acknowledged record in its place; a forgotten sync is found out."""

import os
import pathlib
import re
import shutil
import tempfile
from itertools import pairwise

import numpy as np
import pytest

from lodestream.drivers.record_log.disk import LocalLogDisk
from lodestream.drivers.record_log.frame import NO_KEY, Entry, encode
from lodestream.drivers.record_log.layout import segment_path
from lodestream.drivers.record_log.reader import LogReader
from lodestream.drivers.record_log.writer import LogWriter
from lodestream.errors import LodestreamError, TransientError
from lodestream.testing.faults import PowerLoss
from lodestream.testing.log_faults import FaultyLogDisk, RecordingLogDisk

NOW_US = 1_700_000_000_000_000


class UnsyncedDisk(LocalLogDisk):
    """Skips the real syncs, which cost time and tell these tests nothing."""

    def fsync(self, path):
        self._descriptor(path)

    def sync_directory(self, path):
        pass


def entry(texts):
    records = [text.encode() for text in texts]
    ends = np.cumsum([len(record) for record in records]).astype(np.uint32)
    return Entry("json", b"".join(records), ends, NOW_US, NO_KEY, NO_KEY)


def opened(folder, disk, **settings):
    return LogWriter(folder, disk, lambda: NOW_US, "1" * 32, segment_bytes=700, start=False, **settings)


def workload(disk, recorder, root, phase):
    """Two lives of a log: groups of one and several requests, a failed sync, new segments, a retired one."""
    folder = os.path.join(root, "a", "orders")
    failing = []
    flaky = FaultyLogDisk(disk, lambda kind, path: TransientError("no") if failing and kind == "fsync" else None)
    number = 0
    for life in range(2):
        phase[0] = f"open {life}"
        log = opened(folder, flaky)
        for group in range(4):
            phase[0] = "group"
            taken = []
            for size in (1, 3) if group else (2,):
                texts = [f"record {number + i} of life {life}" for i in range(size)]
                number += size
                taken.append((texts, log.append(entry(texts))))
            failing[:] = [True] if (life, group) == (0, 2) else []
            log.write_group()
            failing.clear()
            for texts, future in taken:
                if future.exception(0) is None:
                    recorder.mark((future.result(0), tuple(texts)))
        end, offset, segment = log.end, log._offset, log._segment
        log.close()
        killed_before_its_sync(disk, folder, end, segment if life == 0 else end, offset if life == 0 else 0)
        phase[0] = f"open {life + 1}"
        log = opened(folder, flaky)
        recorder.mark((end, ("adopted",)))  # from here on readers may have seen it
        log.close()
    log = opened(folder, flaky)
    phase[0] = "retire"
    recorder.mark(("retiring", 4))
    log.retire(before=4, older_than_us=NOW_US + 1)
    log.close()


def killed_before_its_sync(disk, folder, end, segment, offset):
    """A group that was written when the process was killed, at the end of a segment or as a new one."""
    path = segment_path(folder, segment)
    disk.append(path, offset, encode(entry(["adopted"]), end, offset))
    if offset == 0:
        disk.fsync(path)


def violation(root, marks):
    """What a log that is opened after the loss lacks, or None."""
    folder = os.path.join(root, "a", "orders")
    retired = max((value for what, value in marks if what == "retiring"), default=0)
    acknowledged = [(first, texts) for first, texts in marks if first != "retiring"]
    try:
        log = opened(folder, UnsyncedDisk())
        end = log.end
        reader = LogReader(folder)
        begin = reader.begin()
        found = []
        for run in reader.runs(begin, end):
            cuts = [0, *run.ends.tolist()]
            found += [run.data[a:b].decode() for a, b in pairwise(cuts)]
        reader.close()
        future = log.append(entry(["after"]))
        log.write_group()
        again = future.result(0)
        log.close()
    except LodestreamError as error:
        return f"error: {error}"
    if again != end or len(found) != end - begin:
        return "numbers and records disagree"
    if begin > retired:
        return f"records before {begin} are gone"
    for first, texts in acknowledged:
        for i, text in enumerate(texts):
            if first + i >= begin and (first + i >= end or found[first + i - begin] != text):
                return f"lost: {text}"
    return None


def first_violation(folder, forget=lambda phase, kind, path: False):
    """(violation, states looked at, syncs forgotten)."""
    root = str(folder / "lake")
    os.mkdir(root)
    phase = [""]
    recorder = RecordingLogDisk(UnsyncedDisk(), root, lambda kind, path: forget(phase[0], kind, path))
    workload(recorder, recorder, root, phase)
    count = 0
    since = recorder.forgotten[0] if recorder.forgotten else 0
    for state in PowerLoss(recorder.record).states(since=since):
        count += 1
        left = str(folder / f"s{count}")
        found = violation(state.build(left), state.marks)
        shutil.rmtree(left)
        if found:
            last = recorder.record[state.after - 1]
            return f"after {state.after} ({last.kind} {last.path}), {state.variant}: {found}", count, recorder.forgotten
    return None, count, recorder.forgotten


@pytest.fixture
def quick_path(tmp_path):
    """A folder in memory where there is one: hundreds of states are made and deleted."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield pathlib.Path(folder)


def test_every_acknowledged_record_survives_a_power_loss_at_any_point(quick_path):
    found, states, _ = first_violation(quick_path)
    assert found is None
    assert states > 40


FORGOTTEN = {
    "group": ("group", "fsync", r".*\.log$"),
    "segment's name": ("group", "sync_directory", r"a/orders$"),
    "folder's name": ("open 0", "sync_directory", r"a$"),
    "folder above": ("open 0", "sync_directory", r"\.$"),
    "what a restart finds": ("open 1", "fsync", r".*\.log$"),
    "name that a restart finds": ("open 2", "sync_directory", r"a/orders$"),
    "identity": ("open 0", "fsync", r".*id$"),
}


@pytest.mark.parametrize("what", FORGOTTEN)
def test_a_forgotten_sync_is_found_out(quick_path, what):
    phase, kind, pattern = FORGOTTEN[what]
    found, _, forgotten = first_violation(
        quick_path, lambda p, k, path: p == phase and k == kind and bool(re.match(pattern, path))
    )
    assert forgotten
    assert found is not None
