"""Tables of changes: the embedded engine against the reference semantics, and `reconcile` on every lake."""

import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from lodestream.engines.embedded.deletions import Deletions
from lodestream.engines.embedded.key_index import KeyIndex
from lodestream.engines.embedded.lookups import LookupTable
from lodestream.engines.embedded.merge import Merger
from lodestream.engines.embedded.outputs import MergeOutput
from lodestream.engines.embedded.stages import RowStages
from lodestream.errors import ConflictError
from lodestream.lake import crash
from lodestream.model.table import VALID_TO
from lodestream.operations.reconcile import reconcile
from lodestream.testing.streams import BRONZE, HISTORY, LAST, THEN, USERS, make_changes
from tests.engines.test_differential import Site, drive

pytestmark = pytest.mark.usefixtures("one_duckdb")

SHORT, LONG = 20, 1_000
FLOWS = (BRONZE, USERS, LAST, HISTORY, THEN)


def lake(folder, seed):
    """A lake that one stream has gone through in any order; files are small, so that many change."""
    folder.mkdir()
    site = Site(folder, make_changes(seed))
    drive(site, random.Random(seed), handover=seed % 2 == 0)
    return site


def reconciled(site):
    """What `reconcile` finds in a lake."""
    flows = site.pipeline().flows
    reports = [reconcile(str(site.root), str(site.root / "lake"), flows[name]) for name in (LAST, HISTORY, THEN)]
    return [problem for report in reports for problem in report.problems]


def judged(site):
    """What the oracle and `reconcile` find in a lake."""
    return [*site.differences(), *reconciled(site)]


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    monkeypatch.setattr(MergeOutput, "file_rows", 8)
    monkeypatch.setattr(MergeOutput, "small_files_max", 3)


@pytest.mark.parametrize("first", range(0, SHORT, 10))
def test_changes_in_any_order(tmp_path, first):
    for seed in range(first, first + 10):
        assert judged(lake(tmp_path / str(seed), seed)) == [], f"seed={seed}"


@pytest.mark.long
@pytest.mark.parametrize("first", range(10_000, 10_000 + LONG, 10))
def test_changes_in_any_order_at_length(tmp_path, first):
    for seed in range(first, first + 10):
        assert judged(lake(tmp_path / str(seed), seed)) == [], f"seed={seed}"


# --- dying and rivals -------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """A process that is gone."""


@pytest.fixture(autouse=True)
def _no_hook_left():
    yield
    crash.install(None)


def run(site, at=None):
    """Files arrive and every flow runs until idle; a process that comes by point number `at` dies, another goes on.

    Returns how many points were come by.
    """
    passed = 0

    def hook(_name):
        nonlocal passed
        passed += 1
        if passed == at:
            raise Killed

    crash.install(hook)
    left = True
    while left:
        left = site.place()
        while True:
            pipeline = site.pipeline(handover=False, rows_max=30)
            flows = [pipeline.flow(name) for name in FLOWS]
            try:
                for flow in flows:
                    flow.open()
                while sum(flow.step() is not None for flow in flows):
                    pass
                break
            except Killed:
                continue
            finally:
                for flow in flows:
                    flow.close()
    crash.install(None)
    return passed


@pytest.mark.parametrize("part", [*range(8), *(pytest.param(n, marks=pytest.mark.long) for n in range(8, 200))])
def test_a_process_may_die_at_any_point(tmp_path, part):
    seed = 7
    (tmp_path / "whole").mkdir()
    points = run(Site(tmp_path / "whole", make_changes(seed)))
    assert points > 150
    folder = tmp_path / "killed"
    folder.mkdir()
    site = Site(folder, make_changes(seed))
    run(site, at=random.Random(part).randint(1, points))
    assert judged(site) == []


@pytest.mark.parametrize(
    "seed", [*range(60_000, 60_004), *(pytest.param(s, marks=pytest.mark.long) for s in range(99))]
)
def test_two_processes_may_run_the_same_flow(tmp_path, seed):
    """Each steps at any time and opens again when the other was first; a step may be cut in two by the other's."""
    site, rng = Site(tmp_path, make_changes(seed)), random.Random(seed)
    pipelines = [site.pipeline(handover=False, rows_max=20) for _ in range(2)]
    flows = [[pipeline.flow(name) for name in FLOWS] for pipeline in pipelines]
    for flow in (*flows[0], *flows[1]):
        flow.open()

    def step(flow):
        try:
            return flow.step() is not None
        except ConflictError:
            flow.open()
            return True

    conflicts = 0

    def hook(name):
        nonlocal conflicts
        if name in ("plan.after", "quarantine.after", "state.after", "main.staged") and rng.random() < 0.3:
            crash.install(None)
            conflicts += step(flows[1][at])
            crash.install(hook)

    while site.place():
        for at in range(len(FLOWS)):
            crash.install(hook)
            while step(flows[0][at]):
                pass
            crash.install(None)
    while sum(step(flow) for flow in (*flows[0], *flows[1])):
        pass
    for flow in (*flows[0], *flows[1]):
        flow.close()
    assert conflicts
    assert judged(site) == []


# --- the harness sees bugs --------------------------------------------------------------------------------------------


def the_first_arrival_stands(patch):
    query = Merger._query
    patch.setattr(Merger, "_query", lambda self: query(self).replace('"_position" DESC', '"_position"'))


def deletions_are_not_remembered(patch):
    patch.setattr(Deletions, "load", lambda self, stored: None)


def deletions_are_forgotten_too_soon(patch):
    forget = Deletions.forget
    patch.setattr(Deletions, "forget", lambda self, watermark_us: forget(self, watermark_us + 60_000_000))


def deletions_are_not_stored(patch):
    change = Deletions.change
    patch.setattr(Deletions, "change", lambda self, added, gone: change(self, added, gone).slice(0, 0))


def a_changed_file_stays(patch):
    find = KeyIndex.find
    patch.setattr(KeyIndex, "find", lambda self, wanted: list(find(self, wanted))[1:])


def rows_beside_a_changed_one_are_lost(patch):
    merge = Merger.merge

    def wider(self, *given):
        made, stored = merge(self, *given)
        return replace(made, rewrites=tuple(replace(r, gone=np.append(r.gone, 0)) for r in made.rewrites)), stored

    patch.setattr(Merger, "merge", wider)


def late_changes_are_taken_in(patch):
    run = RowStages.run
    patch.setattr(RowStages, "run", lambda self, rows, b, *rest: run(self, rows, replace(b, late_us=-(2**62)), *rest))


def spans_end_by_what_came_last(patch):
    query = Merger._query
    patch.setattr(Merger, "_query", lambda self: query(self).replace("least(_until, lead(", "coalesce(_until, lead("))


def ended_spans_are_found(patch):
    find = LookupTable.find

    def wider(self, rows):
        at = self._index.schema.get_field_index(VALID_TO)
        field = self._index.schema.field(at)
        self._index = self._index.set_column(at, field, pa.nulls(len(self._index), field.type))
        return find(self, rows)

    patch.setattr(LookupTable, "find", wider)


TELLING = [
    the_first_arrival_stands, deletions_are_not_remembered, deletions_are_forgotten_too_soon, deletions_are_not_stored,
    a_changed_file_stays, rows_beside_a_changed_one_are_lost, spans_end_by_what_came_last,
]  # fmt: skip
"""Bugs that leave another table than the changes make."""


@pytest.mark.parametrize("bug", [*TELLING, late_changes_are_taken_in, ended_spans_are_found], ids=lambda b: b.__name__)
def test_a_planted_bug_is_seen(tmp_path, bug):
    """By the oracle; those that leave a wrong table by `reconcile` as well, which knows neither engine nor oracle."""
    seen = {"oracle": False, "reconcile": bug not in TELLING}
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        for seed in range(2 * SHORT):
            site = lake(tmp_path / str(seed), seed)
            seen = {"oracle": seen["oracle"] or site.differences(), "reconcile": seen["reconcile"] or reconciled(site)}
            if all(seen.values()):
                return
    assert not seen, "not seen by each"
