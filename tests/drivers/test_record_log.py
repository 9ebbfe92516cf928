"""The log keeps what it acknowledged, in order, once; and nothing else ever counts."""

import contextlib
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from lodestream.drivers.record_log.disk import LocalLogDisk
from lodestream.drivers.record_log.frame import HEADER, NO_KEY, Entry
from lodestream.drivers.record_log.layout import durable_path, segments
from lodestream.drivers.record_log.marks import Mark
from lodestream.drivers.record_log.reader import LogReader
from lodestream.drivers.record_log.recovery import recover_unserved
from lodestream.drivers.record_log.writer import LogWriter
from lodestream.errors import ConflictError, CorruptionError, DataLossRefused, TransientError
from lodestream.testing.log_faults import FaultyLogDisk

NOW_US = 1_700_000_000_000_000
DAY_US = 86_400_000_000


def entry(records, key=NO_KEY, time_us=NOW_US):
    ends = np.cumsum([len(record) for record in records]).astype(np.uint32)
    return Entry("json", b"".join(records), ends, time_us, key, key)


def key(number):
    return number.to_bytes(16, "big")


def writer(folder, disk=None, now_us=NOW_US, **settings):
    return LogWriter(str(folder), disk or LocalLogDisk(), lambda: now_us, "1" * 32, **settings)


def contents(folder):
    reader = LogReader(str(folder))
    found = []
    for run in reader.runs(reader.begin(), reader.end()):
        start = 0
        for end in run.ends.tolist():
            found.append(run.data[start:end])
            start = end
    reader.close()
    return found


def last_segment(folder):
    return Path(folder, f"{segments(str(folder))[-1]:020d}.log")


def test_records_come_back_in_order_and_sequence_numbers_go_on(tmp_path):
    log = writer(tmp_path / "a" / "b", segment_bytes=500)
    firsts = [log.append(entry([b"x%d" % i] * (i % 3 + 1))).result(30) for i in range(50)]
    log.close()
    again = writer(tmp_path / "a" / "b", segment_bytes=500)
    firsts.append(again.append(entry([b"y"])).result(30))
    again.close()
    assert firsts == np.cumsum([0, *(i % 3 + 1 for i in range(50))]).tolist()
    assert contents(tmp_path / "a" / "b") == [b"x%d" % i for i in range(50) for _ in range(i % 3 + 1)] + [b"y"]
    assert len(segments(str(tmp_path / "a" / "b"))) > 3


def test_many_requests_share_one_sync(tmp_path):
    log = writer(tmp_path, start=False)
    futures = [log.append(entry([b"r"])) for _ in range(100)]
    log.write_group()
    assert [future.result(0) for future in futures] == list(range(100))
    assert log.groups == 1
    log.close()


def test_one_writer_at_a_time_and_many_readers(tmp_path):
    log = writer(tmp_path)
    with pytest.raises(ConflictError):
        writer(tmp_path)
    log.append(entry([b"r"])).result(30)
    assert contents(tmp_path) == contents(tmp_path) == [b"r"]
    recover_unserved(str(tmp_path), LocalLogDisk())  # leaves a log that is served alone
    log.close()
    writer(tmp_path).close()


@pytest.mark.parametrize("cut", [1, HEADER.size - 1, HEADER.size, HEADER.size + 3])
def test_a_torn_tail_is_cut_and_what_was_acknowledged_stays(tmp_path, cut):
    log = writer(tmp_path)
    log.append(entry([b"first"])).result(30)
    log.close()
    whole = last_segment(tmp_path).read_bytes()
    last_segment(tmp_path).write_bytes(whole + whole[:cut])
    again = writer(tmp_path)
    assert again.append(entry([b"second"])).result(30) == 1
    again.close()
    assert contents(tmp_path) == [b"first", b"second"]


def test_damage_before_the_end_is_never_cut(tmp_path):
    log = writer(tmp_path)
    for i in range(5):
        log.append(entry([b"record %d" % i])).result(30)
    log.close()
    path = last_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(b"record 2")] ^= 1
    path.write_bytes(data)
    before = path.read_bytes()
    with pytest.raises(CorruptionError, match="before its end"):
        writer(tmp_path)
    assert path.read_bytes() == before


def test_acknowledged_records_that_are_missing_are_noticed(tmp_path):
    log = writer(tmp_path)
    for i in range(3):
        log.append(entry([b"record %d" % i])).result(30)
    log.close()
    path = last_segment(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptionError, match="missing"):
        writer(tmp_path)


def test_an_older_mark_is_brought_up_to_date(tmp_path):
    log = writer(tmp_path)
    log.append(entry([b"a", b"b"])).result(30)
    log.close()
    mark = Mark(durable_path(str(tmp_path)), writable=True)
    mark.set(1)
    assert contents(tmp_path) == [b"a"]
    recover_unserved(str(tmp_path), LocalLogDisk())
    assert contents(tmp_path) == [b"a", b"b"]
    mark.close()


FAULTS = [(kind, half) for kind in ("append", "fsync", "sync_directory") for half in (False, True)]


@pytest.mark.parametrize(("kind", "half"), FAULTS)
@pytest.mark.parametrize("stubborn", [False, True], ids=["", "cannot be cut"])
def test_a_full_or_failing_disk_loses_nothing_and_recovers_by_itself(tmp_path, kind, half, stubborn):
    """Before, during and after the failure; as the first group of a segment and later."""
    failing = []

    def fault(what, _path):
        if what == kind or (stubborn and what in ("truncate", "unlink")):
            return TransientError("disk is full") if failing else None
        return None

    disk = FaultyLogDisk(LocalLogDisk(), fault, half=half)
    log = writer(tmp_path, disk, segment_bytes=150)
    kept, refused = [], 0
    for i in range(40):
        failing[:] = [True] if i % 5 in (0, 3) else []
        record = b"record %d" % i
        try:
            log.append(entry([record], key(i + 1))).result(30)
            kept.append(record)
        except TransientError:
            refused += 1
            assert log.failing
    assert refused >= (1 if kind == "sync_directory" else 16)
    assert log.answers.find(key(1), NOW_US) is None or b"record 0" in kept
    assert contents(tmp_path) == kept
    log.close()
    writer(tmp_path).close()
    assert contents(tmp_path) == kept


def test_a_failed_group_that_stayed_on_the_disk_does_not_count_later(tmp_path):
    """The write went through, the sync did not, cutting did not either; then other records took the numbers."""
    failing = []
    disk = FaultyLogDisk(
        LocalLogDisk(), lambda what, _p: TransientError("no") if failing and what != "append" else None
    )
    log = writer(tmp_path, disk)
    log.append(entry([b"a"])).result(30)
    failing.append(True)
    with pytest.raises(TransientError):
        log.append(entry([b"ghost 1", b"ghost 2"])).result(30)
    failing.clear()
    log.append(entry([b"b"])).result(30)
    log.close()
    assert b"ghost" in b"".join(path.read_bytes() for path in tmp_path.glob("*.log"))
    writer(tmp_path).close()
    assert contents(tmp_path) == [b"a", b"b"]


def test_retired_segments_are_consumed_and_old(tmp_path):
    log = writer(tmp_path, segment_bytes=1)
    for day in range(6):
        log.append(entry([b"a", b"b"], time_us=NOW_US + day * DAY_US)).result(30)
    assert log.retire(before=0, older_than_us=NOW_US + 9 * DAY_US) == 0
    assert log.retire(before=5, older_than_us=NOW_US + 9 * DAY_US) == 2
    assert log.retire(before=99, older_than_us=NOW_US + 3 * DAY_US + 1) == 1
    assert log.retire(before=99, older_than_us=NOW_US + 99 * DAY_US) == 2
    assert len(segments(str(tmp_path))) == 1
    reader = LogReader(str(tmp_path))
    assert (reader.begin(), reader.end()) == (10, 12)
    with pytest.raises(DataLossRefused):
        list(reader.runs(9, 12))
    log.close()
    assert contents(tmp_path) == [b"a", b"b"]


def test_answers_are_kept_for_a_while_and_over_restarts(tmp_path):
    log = writer(tmp_path, answers_kept_us=DAY_US)
    log.append(entry([b"a", b"b"], key(1))).result(30)
    assert log.answers.find(key(1), NOW_US).first == 0
    assert log.answers.find(key(2), NOW_US) is None
    assert log.answers.find(key(1), NOW_US + DAY_US) is None
    log.close()
    for damage in (None, b"", b"no database at all, but long enough to look like something" * 100):
        for path in tmp_path.glob("answers.sqlite*"):
            if damage is not None:
                path.write_bytes(damage)
        again = writer(tmp_path, answers_kept_us=DAY_US)
        answer = again.answers.find(key(1), NOW_US)
        assert (answer.first, answer.count, answer.body) == (0, 2, key(1))
        again.close()


def test_what_was_written_and_not_answered_is_answered_after_a_restart(tmp_path):
    """The index lags behind the log when the process dies between the two."""
    log = writer(tmp_path)
    log.append(entry([b"a"], key(1))).result(30)
    log.answers.add = lambda *_: None
    log.append(entry([b"b"], key(2))).result(30)
    log.close()
    again = writer(tmp_path)
    assert again.answers.find(key(2), NOW_US).first == 1
    again.close()


def test_readers_see_only_whole_groups_while_it_is_written(tmp_path):
    log = writer(tmp_path, segment_bytes=2000)
    done = threading.Event()
    seen = []

    def read():
        while not done.is_set():
            seen.append(contents(tmp_path))

    reading = threading.Thread(target=read)
    reading.start()
    for i in range(300):
        log.append(entry([b"%d" % i])).result(30)
    done.set()
    reading.join(30)
    log.close()
    everything = contents(tmp_path)
    assert len(everything) == 300
    assert all(part == everything[: len(part)] for part in seen)


def _write_until_killed(folder, acknowledged, seed):
    log = LogWriter(folder, LocalLogDisk(), lambda: NOW_US, "1" * 32, segment_bytes=4000)
    draw = random.Random(seed)
    with open(acknowledged, "ab", buffering=0) as file:
        pending = []
        while True:
            text = b"%032x" % draw.getrandbits(128)
            pending.append((text, log.append(entry([text] * draw.randint(1, 3), text[:16]))))
            if len(pending) > draw.randint(0, 5):
                file.writelines(b"%d %b\n" % (future.result(30), written) for written, future in pending)
                pending.clear()


def kill_rounds(folder, rounds):
    """Kill the writer again and again; every acknowledged record is where it was said to be, once."""
    acknowledged = folder / "acknowledged"
    draw = random.Random(1)
    for seed in range(rounds):
        before = acknowledged.stat().st_size if acknowledged.exists() else 0
        child = subprocess.Popen([sys.executable, __file__, str(folder / "log"), str(acknowledged), str(seed)])
        while not acknowledged.exists() or acknowledged.stat().st_size < before + draw.randint(100, 20_000):
            assert child.poll() is None
        child.kill()
        child.wait(30)
    with contextlib.closing(writer(folder / "log", segment_bytes=4000)) as log:
        found = contents(folder / "log")
        lines = [line.split() for line in acknowledged.read_bytes().splitlines() if line.count(b" ") == 1]
        assert len(lines) > rounds
        for first, text in lines:
            assert found[int(first)] == text
            answer = log.answers.find(text[:16], NOW_US)
            assert (answer.first, found.count(text)) == (int(first), answer.count)


def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path):
    kill_rounds(tmp_path, 3)


@pytest.mark.long
def test_a_writer_killed_forty_times_loses_nothing(tmp_path):
    kill_rounds(tmp_path, 40)


if __name__ == "__main__":
    _write_until_killed(sys.argv[1], sys.argv[2], int(sys.argv[3]))
