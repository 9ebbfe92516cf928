"""The chain of audit records: whatever is done to a stored log is seen, and named; and values stay out of it."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestream.catalog import chain
from lodestream.catalog.anchors import Anchors
from lodestream.catalog.chain import START, Anchor, Record, body_of, check, digest_of
from lodestream.catalog.redaction import TEXT_MAX, without_values


def chained(count, first=1, previous=START, principal="alice"):
    found = []
    for seq in range(first, first + count):
        record = Record(seq, 1_000 + seq, principal, "query", "allowed", json.dumps({"n": seq}), previous, "")
        found.append(replace(record, digest=chain.digest_of(seq, previous, body_of(record))))
        previous = found[-1].digest
    return found


def anchors_of(records, *places):
    return [Anchor(number, seq, records[seq - 1].digest, 0) for number, seq in enumerate(places, 1)]


def verdict(records, anchors=()):
    where = {record.digest: record.seq for record in records}
    broken = check(records, anchors, where.get).broken
    return broken and (broken.seq, broken.kind)


def remade(records, at, **changes):
    """The log with one record changed and the digests from there on made anew."""
    found, previous = list(records[: at - 1]), records[at - 2].digest if at > 1 else START
    for record in records[at - 1 :]:
        made = replace(record, previous=previous, **(changes if record.seq == at else {}))
        found.append(replace(made, digest=chain.digest_of(made.seq, previous, body_of(made))))
        previous = found[-1].digest
    return found


def test_a_whole_log_is_right():
    records = chained(50)
    found = check(records, anchors_of(records, 1, 20, 50))
    assert (found.records, found.anchored, found.broken) == (50, 50, None)
    assert found.head == records[-1].digest
    assert check([], []).broken is None


@pytest.mark.parametrize("field", ["time_us", "principal", "action", "decision", "told"])
def test_a_changed_field_is_seen(field):
    records = chained(9)
    old = getattr(records[4], field)
    records[4] = replace(records[4], **{field: old + 1 if isinstance(old, int) else old + " "})
    assert verdict(records) == (5, "changed")


@given(st.data())
def test_any_flipped_bit_is_seen(data):
    records = chained(6)
    at = data.draw(st.integers(0, 5))
    field = data.draw(st.sampled_from(["time_us", "principal", "action", "decision", "told", "previous", "digest"]))
    old = getattr(records[at], field)
    if isinstance(old, int):
        new = old ^ (1 << data.draw(st.integers(0, 40)))
    else:
        place = data.draw(st.integers(0, len(old) - 1))
        new = old[:place] + chr(ord(old[place]) ^ (1 << data.draw(st.integers(0, 6)))) + old[place + 1 :]
    records[at] = replace(records[at], **{field: new})
    broken = verdict(records)
    assert broken is not None
    assert broken[0] == at + 1


def test_a_record_that_was_taken_out_is_named():
    records = chained(9)
    del records[3]
    assert verdict(records) == (4, "missing")


def test_closing_the_gap_does_not_hide_it():
    records = chained(9)
    closed = records[:3] + [replace(record, seq=record.seq - 1) for record in records[4:]]
    assert verdict(closed) == (4, "moved")


def test_records_that_changed_places_are_named():
    for one, other in ((3, 4), (2, 40)):
        records = chained(50)
        records[one - 1], records[other - 1] = (
            replace(records[other - 1], seq=one), replace(records[one - 1], seq=other),
        )  # fmt: skip
        assert verdict(records) == (one, "moved")


def test_a_record_that_was_put_in_is_named():
    records = chained(9)
    made = chained(1, first=5, previous=records[3].digest, principal="mallory")
    pushed = records[:4] + made + [replace(record, seq=record.seq + 1) for record in records[4:]]
    assert verdict(pushed) == (5, "inserted")


def test_a_record_with_a_digest_made_anew_is_named():
    records = chained(9)
    made = replace(records[4], principal="nobody")
    records[4] = replace(made, digest=digest_of(5, made.previous, body_of(made)))
    assert verdict(records) == (5, "changed")


def test_a_log_written_anew_is_seen_by_the_anchors():
    records = chained(40)
    anchors = anchors_of(records, 1, 10, 20, 40)
    forged = remade(records, 15, principal="nobody")
    assert verdict(forged) is None, "the chain alone cannot tell"
    found = check(forged, anchors)
    assert (found.broken.seq, found.broken.kind) == (11, "rewritten")
    assert "from 11 to 20" in found.broken.message
    assert verdict(remade(records, 1, principal="nobody"), anchors) == (1, "rewritten")


def test_a_cut_tail_is_seen_by_the_anchors():
    records = chained(40)
    anchors = anchors_of(records, 1, 20, 40)
    assert verdict(records[:33], anchors) == (34, "cut")
    assert verdict([], anchors) == (1, "cut")
    assert verdict(records[:33] + chained(7, 34, records[32].digest, "mallory"), anchors) == (21, "rewritten")


def test_a_head_that_was_taken_off_is_seen():
    records = chained(9)
    assert verdict(records[2:]) == (1, "missing")
    moved = [replace(record, seq=record.seq - 2) for record in records[2:]]
    assert verdict(moved) == (1, "moved")


def covers_no_content(patch):
    patch.setattr(chain, "digest_of", lambda seq, previous, _content: digest_of(seq, previous, b""))


def follows_no_links(patch):
    patch.setattr(chain, "_broken", lambda record, seq, _head, _place: None if record.at(seq) else "broken")


def forgets_anchors(patch):
    patch.setattr(chain, "vouching", lambda _anchors: {})


def stops_at_the_last_record(patch):
    patch.setattr(chain, "_cut", lambda _seq, _anchors: None)


def changed(records):
    made = replace(records[4], principal="nobody")
    return [*records[:4], replace(made, digest=chain.digest_of(5, made.previous, body_of(made))), *records[5:]]


BUGS = {
    covers_no_content: lambda records: [*records[:4], replace(records[4], principal="nobody"), *records[5:]],
    follows_no_links: changed,
    forgets_anchors: lambda records: remade(records, 3, principal="nobody"),
    stops_at_the_last_record: lambda records: records[:7],
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_checker_with_a_hole_misses_what_the_real_one_sees(bug, monkeypatch):
    records = chained(9)
    anchors = anchors_of(records, 1, 9)
    assert verdict(BUGS[bug](records), anchors) is not None
    bug(monkeypatch)
    records = chained(9)
    assert verdict(BUGS[bug](records), [] if bug is follows_no_links else anchors_of(records, 1, 9)) is None


# Anchors ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def anchored(tmp_path):
    anchors = Anchors(str(tmp_path))
    for number in range(1, 6):
        with anchors.held():
            assert anchors.add(number * 10, f"{number:064x}", number).number == number
    return anchors


def lines(anchors):
    with open(anchors.path) as file:
        return file.read().splitlines(keepends=True)


def write(anchors, text):
    with open(anchors.path, "w") as file:
        file.write(text)


def test_anchors_are_read_as_they_were_added(anchored):
    read = anchored.read()
    assert [(one.number, one.seq) for one in read.anchors] == [(n, n * 10) for n in range(1, 6)]
    assert read.problem is None
    assert anchored.newest() == read.anchors[-1]


def test_key_and_anchors_are_for_their_owner_alone(anchored, tmp_path):
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "audit.key": 0o600, "audit.anchors": 0o600, "audit.anchors.lock": 0o600,
    }  # fmt: skip


def test_every_changed_character_of_an_anchor_is_seen(anchored):
    text = "".join(lines(anchored))
    chance = random.Random(5)
    for _ in range(200):
        at = chance.randrange(len(text))
        new = chance.choice('0123456789abcdef,[]" \n')
        if new == text[at]:
            continue
        write(anchored, text[:at] + new + text[at + 1 :])
        read = anchored.read()
        cut = "\n" not in text[at:]  # the newline of the last line: it counts as never finished
        assert read.problem is not None or len(read.anchors) < 5 or cut, (at, new)
        assert all(one.seq == one.number * 10 for one in read.anchors)


def test_a_missing_anchor_is_seen(anchored):
    every = lines(anchored)
    write(anchored, "".join(every[:2] + every[3:]))
    assert "anchor 3 was changed" in anchored.read().problem
    write(anchored, "".join(every[1:]))
    assert "anchor 1 was changed" in anchored.read().problem


def test_an_anchor_signed_with_another_key_is_seen(anchored, tmp_path):
    other = Anchors(str(tmp_path / "other"))
    for number in range(1, 4):
        with other.held():
            other.add(number * 10, "f" * 64, number)
    write(anchored, "".join(lines(other)))
    assert anchored.read().anchors == ()
    assert "anchor 1 was changed" in anchored.read().problem


def test_an_anchor_half_written_is_written_over(anchored):
    every = lines(anchored)
    for end in range(1, len(every[4])):
        write(anchored, "".join(every[:4]) + every[4][:end])
        assert len(anchored.read().anchors) == 4
        assert anchored.read().problem is None
    with anchored.held():
        assert anchored.add(77, "a" * 64, 9).number == 5
    assert [one.seq for one in anchored.read().anchors] == [10, 20, 30, 40, 77]


def test_a_lost_key_is_told(anchored, tmp_path):
    (tmp_path / "audit.key").unlink()
    assert anchored.read().problem == "the key of the anchors is gone"


# Values -------------------------------------------------------------------------------------------------------------

SECRETS = [
    "select * from gold.t where a = 'CANARY'",
    "select 'it''s CANARY' || x",
    "select E'\\'CANARY'",
    "select $$CANARY$$, $tag$ CANARY $$ CANARY $tag$",
    "select x'CANARY', b'CANARY', U&'CANARY'",
    "select 1 -- CANARY\n from t",
    "select /* CANARY */ 1",
    "select /* CANARY",
    "select 'CANARY",
    'select "a" from t where b = "CANARY and more',
    "select $$CANARY",
    "select date 'CANARY', timestamp'CANARY'",
    "select * from t where name='CANARY'and other='CANARY'",
    "values ('a','CANARY'),('b','CANARY')",
]


@pytest.mark.parametrize("sql", SECRETS)
def test_values_stay_out(sql):
    assert "CANARY" not in without_values(sql)


def test_what_is_asked_stays():
    sql = 'SELECT q1."My Col", count(*) FROM gold.orders2 q1 -- why\n WHERE n > 12.5e-3 AND x1 = $1 AND b IN (1, 2)'
    assert without_values(sql) == (
        'SELECT q1."My Col", count(*) FROM gold.orders2 q1 WHERE n > ? AND x1 = $1 AND b IN (?, ?)'
    )
    assert without_values("select 0x1F, 1_000, .5, 1e+6 limit 10") == "select ?, ?, ?, ? limit ?"


@given(st.text(alphabet="abc'\"$-/*\\ \n09e.E", max_size=60))
def test_a_text_in_quotes_never_shows(around):
    """Whatever follows, the text of a closed literal at the beginning is out."""
    assert "CANARY" not in without_values("'CANARY'" + around)


def test_a_long_query_is_cut():
    assert len(without_values("select " + "a, " * 10_000)) == TEXT_MAX + 1
