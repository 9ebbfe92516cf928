"""The chain that ties audit records together: what a record's digest covers, and what a break in the chain says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

START = "0" * 64
"""What stands for the digest of the record before the first one."""

Kind = Literal["changed", "missing", "inserted", "moved", "rewritten", "cut", "anchor"]
_NEAR = 8


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the audit log, as stored.

    Attributes:
        seq: its place, from 1 without gaps.
        time_us: when, microseconds since 1970 UTC.
        principal: who.
        action: what they did.
        decision: `allowed` or `refused`.
        told: everything else, as canonical JSON: via, door, objects, policies, catalog_version, detail.
        previous: digest of the record before.
        digest: SHA-256 over all of these, hexadecimal.
    """

    seq: int
    time_us: int
    principal: str
    action: str
    decision: str
    told: str
    previous: str
    digest: str

    def at(self, seq: int) -> bool:
        """Whether the digest is right for this content at a place, behind the record that it names."""
        return digest_of(seq, self.previous, body_of(self)) == self.digest


@dataclass(frozen=True, slots=True)
class Anchor:
    """A signed note of how far the chain was at some time."""

    number: int
    seq: int
    digest: str
    time_us: int


@dataclass(frozen=True, slots=True)
class Break:
    """The first thing that is wrong with a log: which record, in what way, in words."""

    seq: int
    kind: Kind
    message: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What a walk over the chain found.

    Attributes:
        records: how many there are up to the break, all of them when there is none.
        head: digest of the last one that is right.
        anchored: the newest record that a signed anchor vouches for.
        broken: the first thing that is wrong.
    """

    records: int
    head: str
    anchored: int
    broken: Break | None = None


def canonical(value: object) -> str:
    """JSON in the one form that digests are made of: sorted keys, no blanks, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def body(time_us: int, principal: str, action: str, decision: str, told: str) -> bytes:
    """What a digest covers beside the place and the record before."""
    return json.dumps([time_us, principal, action, decision, told], separators=(",", ":")).encode()


def body_of(record: Record) -> bytes:
    """See `body`."""
    return body(record.time_us, record.principal, record.action, record.decision, record.told)


def digest_of(seq: int, previous: str, content: bytes) -> str:
    """The digest of a record."""
    return hashlib.sha256(b"lodestream audit 1\n%d\n%s\n%s" % (seq, previous.encode(), content)).hexdigest()


def check(
    records: Iterable[Record], anchors: Sequence[Anchor], place_of: Callable[[str], int | None] | None = None
) -> Checked:
    """Walk over all records and say what is wrong first.

    Args:
        records: in order of their places.
        anchors: whose signatures are right.
        place_of: the place at which the record with a digest is stored now; helps to say what became of a record.
    """
    vouched = vouching(anchors)
    seq, head, anchored = 0, START, 0
    for record in records:
        broken = _broken(record, seq + 1, head, place_of)
        anchor = vouched.get(record.seq)
        if broken is None and anchor is not None and anchor.digest != record.digest:
            first = anchored + 1
            span = f"record {first}" if first == record.seq else f"a record from {first} to {record.seq}"
            broken = Break(first, "rewritten", f"{span} was rewritten: anchor {anchor.number} saw another record there")
        if broken is not None:
            return Checked(seq, head, anchored, broken)
        seq, head = record.seq, record.digest
        anchored = seq if anchor is not None else anchored
    return Checked(seq, head, anchored, _cut(seq, anchors))


def vouching(anchors: Sequence[Anchor]) -> dict[int, Anchor]:
    """Anchors by the record that they vouch for."""
    return {anchor.seq: anchor for anchor in anchors}


def _cut(seq: int, anchors: Sequence[Anchor]) -> Break | None:
    """What is missing behind the last record."""
    beyond = [anchor for anchor in anchors if anchor.seq > seq]
    if not beyond:
        return None
    last = max(beyond, key=lambda anchor: anchor.seq)
    lost = f"record {last.seq} is" if last.seq == seq + 1 else f"records {seq + 1} to {last.seq} are"
    return Break(seq + 1, "cut", f"{lost} missing at the end: anchor {last.number} saw them")


def _broken(record: Record, seq: int, head: str, place_of: Callable[[str], int | None] | None) -> Break | None:
    if record.seq > seq:
        gone = f"record {seq} is" if record.seq == seq + 1 else f"records {seq} to {record.seq - 1} are"
        return Break(seq, "missing", f"{gone} missing")
    if record.seq < seq:
        return Break(record.seq, "inserted", f"a second record {record.seq} was put in")
    if record.at(seq):
        if record.previous == head:
            return None
        if seq == 1:
            return Break(1, "missing", "records before record 1 are missing")
        return Break(seq - 1, "changed", f"record {seq - 1} was changed, and its digest made anew")
    near = [seq + step for step in range(-_NEAR, _NEAR + 1) if step and seq + step > 0]
    known = place_of(record.previous) if place_of is not None else None
    for other in [*near, *([known + 1] if known is not None else [])]:
        if not record.at(other):
            continue
        if other < seq:
            return Break(other, "inserted", f"a record was put in as record {other}: the next one is the real {other}")
        return Break(seq, "moved", f"record {seq} is gone or moved: what stands there was record {other}")
    return Break(seq, "changed", f"record {seq} was changed")
