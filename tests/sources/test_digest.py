"""The content digest: additive over ranges, and different when bytes are."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from lodestream.sources._digest import ContentDigest, digest_file


def digest(data, *cuts):
    made = ContentDigest()
    for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True):
        made.update(memoryview(data)[a:b])
    return made.value


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=4))
def test_cutting_the_data_anywhere_gives_the_same(data, cuts):
    places = sorted(min(cut, len(data)) for cut in cuts)
    assert digest(data, *places) == digest(data)


def test_changed_moved_and_swapped_bytes_change_it(tmp_path):
    chance = random.Random(1)
    data = bytearray(chance.randbytes(200_000))
    was = digest(bytes(data))
    for _ in range(200):
        i, j = chance.randrange(len(data)), chance.randrange(len(data))
        data[i], data[j] = data[j], data[i]
        assert (digest(bytes(data)) == was) == (data[i] == data[j])
        data[i], data[j] = data[j], data[i]
    assert digest(bytes(data[1:] + data[:1])) != was
    block = 1 << 16
    assert digest(bytes(data[block : 2 * block] + data[:block] + data[2 * block :])) != was
    path = tmp_path / "x"
    path.write_bytes(data)
    assert digest_file(path, len(data)) == was
    middle = digest_file(path, 77_777)
    assert digest_file(path, len(data), 77_777, middle) == was
    assert digest_file(path, len(data) + 1) is None
