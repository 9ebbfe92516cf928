"""The dedup map in both forms, against a dict."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lodestream.engines.embedded import dedup, segments
from lodestream.engines.embedded.dedup import DedupMap
from lodestream.engines.embedded.spill import Spill, StateBudget
from tests.native import FORMS

KEYS = st.tuples(st.integers(0, 2), st.integers(0, 5)).filter(any)
BATCH = st.tuples(st.lists(st.tuples(KEYS, st.integers(0, 40)), max_size=30), st.integers(0, 30))


def columns(rows):
    high = np.array([key[0] for key, _ in rows], np.uint64)
    low = np.array([key[1] for key, _ in rows], np.uint64)
    return high, low, np.array([expiry for _, expiry in rows], np.int64)


def claim(model, rows, late_us):
    """What a batch finds: the first row of each key that is absent or expired takes it."""
    flags, taken = [], set()
    for key, expiry in rows:
        first = key not in taken and not (key in model and model[key] > late_us)
        if first:
            model[key] = expiry
            taken.add(key)
        flags.append(first)
    return flags


def live(found):
    return {(int(h), int(low)): int(e) for h, low, e in zip(*found, strict=True)}


@pytest.mark.parametrize("kernels", FORMS)
@settings(max_examples=200, deadline=None)
@given(batches=st.lists(BATCH, max_size=6), loaded=BATCH, chunk=st.sampled_from([2, 1 << 15]))
def test_equals_a_dict(kernels, batches, loaded, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup, "_CHUNK", chunk)
        seen, model = DedupMap(kernels), dict(loaded[0])
        seen.load(*columns(loaded[0]), 0)
        late_us = 0
        for rows, step in batches:
            late_us = max(late_us, step)
            assert seen.claim(*columns(rows), late_us).tolist() == claim(model, rows, late_us)
            expected = {key: expiry for key, expiry in model.items() if expiry > late_us}
            assert live(seen.live(late_us)) == expected


WIDE = st.tuples(st.integers(1, 3), st.sampled_from([n << 61 for n in range(8)] + [1, 2, (1 << 64) - 1]))
WIDE_BATCH = st.tuples(st.lists(st.tuples(WIDE, st.integers(0, 40)), max_size=30), st.integers(0, 30))


@pytest.mark.parametrize("kernels", FORMS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.one_of(BATCH, WIDE_BATCH), max_size=10), restart=st.integers(0, 9))
def test_equals_a_dict_without_memory(tmp_path, kernels, batches, restart):
    """Keys go to segments and segments are merged; in between, all of it is stored and loaded again."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (
            (dedup, "_SMALLEST", 8), (segments, "_CHUNK", 3), (segments, "_MERGED", 3), (segments, "_BUCKET_KEYS", 2),
        ):  # fmt: skip
            patch.setattr(module, name, value)
        spill = Spill(str(tmp_path), "f", StateBudget(0))
        seen, model, late_us = DedupMap(kernels, spill), {}, 0
        for number, (rows, step) in enumerate(batches):
            late_us = max(late_us, step)
            assert seen.claim(*columns(rows), late_us).tolist() == claim(model, rows, late_us)
            assert len(seen.segments) < 3 * 6
            if number == restart:
                memory, aside = seen.stored(late_us)
                seen = DedupMap(kernels, None if restart % 2 else spill)
                for segment in aside:
                    seen.load_segment(segment, late_us)
                seen.load(*memory, late_us)


@pytest.mark.parametrize("kernels", FORMS)
def test_memory_is_bounded_whatever_is_held(tmp_path, kernels):
    """Two hundred thousand keys beside a map that has room for eight thousand: all are known, each expires in time."""
    spill, random = Spill(str(tmp_path), "f", StateBudget(800_000)), np.random.default_rng(7)
    seen, given = DedupMap(kernels, spill), []
    for batch in range(100):
        high, low = (random.integers(1, 1 << 63, 2_000).astype(np.uint64) for _ in range(2))
        given.append((high, low))
        assert seen.claim(high, low, np.full(2_000, batch + 60), batch).all()
        for age in (1, 7, 59, 60, 61):
            if age <= batch:
                again = seen.claim(*(column[:50] for column in given[batch - age]), np.full(50, batch + 60), batch)
                assert again.tolist() == [age == 60] * 50, age
        assert seen.nbytes <= 400_000
    assert len(seen) < 90 * 2_000  # what has expired leaves with its segment
    assert seen.spilled > 60 * 2_000 * 24


@pytest.mark.parametrize("kernels", FORMS)
def test_grows_and_forgets(kernels):
    seen, random = DedupMap(kernels), np.random.default_rng(7)
    sizes = []
    for batch in range(12):
        high, low = (random.integers(1, 1 << 63, 20_000).astype(np.uint64) for _ in range(2))
        expiry_us = np.full(20_000, batch + 2)
        assert seen.claim(high, low, expiry_us, batch).all()
        assert not seen.claim(high, low, expiry_us, batch).any()
        sizes.append(seen.nbytes)
    assert sizes[-1] <= 8 * 24 * 60_000
    assert len(seen.live(11)[0]) == 40_000
    again = DedupMap(kernels)
    again.load(*seen.live(11), 11)
    assert live(again.live(11)) == live(seen.live(11))


@pytest.mark.parametrize("kernels", FORMS)
def test_takes_columns_that_are_views(kernels):
    rows = np.arange(1, 61, dtype=np.uint64)
    seen = DedupMap(kernels)
    assert seen.claim(rows[::-2], rows[::2], np.full(30, 9), 0).all()
    assert not seen.claim(rows[::-2], rows[::2], np.full(30, 9), 0).any()
