"""The shared map behaves as a dict that is copied on every change."""

from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.lake.live import LiveMap

KEYS = st.integers(0, 40).map(str)
CHANGES = st.lists(st.tuples(st.lists(st.tuples(KEYS, st.integers())), st.lists(KEYS)), max_size=20)


@given(CHANGES)
@settings(max_examples=60)
def test_it_is_a_copied_dict(changes):
    wanted, live = {}, LiveMap()
    versions = []
    for put, drop in changes:
        wanted = {k: v for k, v in wanted.items() if k not in drop} | dict(put)
        live = live.changed(put, drop)
        versions.append((live, wanted))
    for version, copy in versions:
        assert dict(version) == copy
        assert len(version) == len(copy)
        assert all(key in version for key in copy)
        assert "absent" not in version


def test_it_grows():
    live = LiveMap()
    for number in range(20_000):
        live = live.changed([(str(number), number)])
    assert len(live) == len(set(live)) == 20_000
    assert all(live[str(number)] == number for number in range(0, 20_000, 37))
    assert max(len(bucket) for bucket in live._buckets) < 300
