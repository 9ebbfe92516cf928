import json
from collections import Counter
from itertools import pairwise

from lodestream.model.table import Session, Window
from lodestream.semantics.chained import windows_of
from lodestream.semantics.stages import Batch, run_stream
from lodestream.testing.streams import BRONZE, CHAINED, GOLD, SILVER, USERS, make_stream

SEEDS = range(200)


def test_a_seed_is_a_stream():
    first, again = make_stream(7), make_stream(7)
    assert [f.content for f in first.files] == [f.content for f in again.files]
    assert first.declarations == again.declarations
    assert make_stream(8).files != first.files


def test_positions_are_the_offsets_of_lines_and_rows_are_what_the_lines_say():
    torn = 0
    for seed in range(20):
        for file in make_stream(seed).files:
            for (unit, offset), row in file.records():
                line = file.content[offset:].split(b"\n")[0]
                assert unit == file.unit
                assert offset == 0 or file.content[offset - 1 : offset] == b"\n"
                if row is None:
                    torn += 1
                    continue
                said = json.loads(line)
                assert {k: v for k, v in row.items() if v is not None and k not in ("at", "seen")} == {
                    k: v for k, v in said.items() if k not in ("at", "seen")
                }
                assert ("at" in said) == (row["at"] is not None)
    assert torn > 20


def test_the_streams_hold_what_real_feeds_do_wrong():
    kinds: Counter[str] = Counter()
    shapes: Counter[str] = Counter()
    for seed in SEEDS:
        stream = make_stream(seed)
        accepted = {BRONZE: [list(rows(file)) for file in stream.files]}
        shapes["empty file"] += sum(not file.lines for file in stream.files)
        known = []
        follows = {}
        pins = []
        for file in stream.users:
            known = [*known, *(row for _, row in file.records())]
            pins.append({USERS: known})
        for name, spec in stream.specs.items():
            inputs = accepted[stream.upstream[name]]
            marks = follows.get(stream.upstream[name], [None] * len(inputs))
            batches = [
                Batch(r, p, watermark_us=m) for r, p, m in zip(inputs, pins or [{}] * len(inputs), marks, strict=True)
            ]
            outcomes = run_stream(spec, batches)
            accepted[name] = [out.accepted for out in outcomes]
            if spec.window is not None and spec.emit == "final":
                accepted[name] = [windows_of(name, spec, out) for out in outcomes]
                follows[name] = [out.mark.evict_us for out in outcomes]
            shapes["windows of windows"] += name == CHAINED and bool(outcomes[-1].after.table)
            shapes["corrected"] += any(
                key in before.after.covered and before.after.covered[key] != out.after.covered[key]
                for before, out in pairwise(outcomes) for key in out.after.covered
            )  # fmt: skip
            shapes["sessions of several rows"] += isinstance(spec.window, Session) and any(
                row["_rows"] > 1 for row in outcomes[-1].after.table.values()
            )
            for out in outcomes:
                shapes["missed"] += len(out.missed)
                for disposition in out.dispositions.values():
                    kinds[disposition.kind] += 1
                    kinds.update(reason.split(":")[0] for reason in disposition.reasons)
                    kinds["error"] += any(reason.endswith(":error") for reason in disposition.reasons)
            shapes["hopping"] += isinstance(spec.window, Window) and spec.window.slide_us is not None
            shapes["tumbling"] += isinstance(spec.window, Window) and spec.window.slide_us is None
            shapes[spec.emit if spec.window else "rows"] += 1
            shapes["dedup"] += spec.dedup is not None
            shapes["within"] += spec.dedup is not None and spec.dedup.within_us is not None
            shapes["closed"] += spec.window is not None and len(outcomes[-1].after.table) > len(
                outcomes[-1].after.opened
            )
            shapes["groups"] += len(spec.group_by) > 1
        assert {SILVER, GOLD} <= set(stream.specs)
    wanted = ("output", "quarantine", "late", "duplicate", "dropped", "null_event_time", "lookup_ambiguous", "derive")
    assert min(kinds[k] for k in (*wanted, "expect", "measure", "group", "error")) >= 40, kinds
    assert min(shapes.pop("missed"), shapes.pop("corrected")) >= 10
    assert min(shapes.values()) >= 25, shapes


def rows(file):
    for (source, position), row in file.records():
        if row is not None:
            yield {**row, "_source": source, "_position": position}
