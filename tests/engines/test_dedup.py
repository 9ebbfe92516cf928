"""The dedup map in both forms, against a dict."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.engines.embedded import dedup
from lodestream.engines.embedded.dedup import DedupMap
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
