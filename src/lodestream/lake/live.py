"""A map from path to file that many versions share: a changed copy costs the same whatever the table's size."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from typing import Generic, TypeVar

V = TypeVar("V")
_BUCKET = 32
_SMALLEST = 64


class _Items(ItemsView[str, V]):
    _mapping: LiveMap[V]

    def __iter__(self) -> Iterator[tuple[str, V]]:
        for bucket in self._mapping._buckets:
            yield from bucket.items()


class _Values(ValuesView[V]):
    _mapping: LiveMap[V]

    def __iter__(self) -> Iterator[V]:
        for bucket in self._mapping._buckets:
            yield from bucket.values()


class LiveMap(Mapping[str, V], Generic[V]):
    """An immutable mapping in hash buckets; `changed` copies only the buckets that it touches.

    With n entries there are n/32 buckets, so a change copies one bucket of about 32 entries and one tuple of n/32
    pointers: some microseconds at a million files.
    """

    __slots__ = ("_buckets", "_count")

    def __init__(self, items: Iterable[tuple[str, V]] = ()) -> None:
        entries = dict(items)
        self._count = len(entries)
        self._buckets = _spread(entries.items(), self._count)

    def __getitem__(self, key: str) -> V:
        return self._buckets[hash(key) % len(self._buckets)][key]

    def __contains__(self, key: object) -> bool:
        return key in self._buckets[hash(key) % len(self._buckets)]

    def __iter__(self) -> Iterator[str]:
        for bucket in self._buckets:
            yield from bucket

    def __len__(self) -> int:
        return self._count

    def items(self) -> ItemsView[str, V]:
        """Keys and values, bucket by bucket: the ones that `Mapping` gives would hash each key once more."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """Values in the same order."""
        return _Values(self)

    def changed(self, put: Iterable[tuple[str, V]] = (), drop: Iterable[str] = ()) -> LiveMap[V]:
        """A map without the keys of `drop` (missing ones are no error), then with the pairs of `put`."""
        buckets = list(self._buckets)
        fresh: set[int] = set()
        count = self._count

        def own(key: str) -> dict[str, V]:
            index = hash(key) % len(buckets)
            if index not in fresh:
                buckets[index] = dict(buckets[index])
                fresh.add(index)
            return buckets[index]

        for key in drop:
            if own(key).pop(key, None) is not None:
                count -= 1
        for key, value in put:
            bucket = own(key)
            count += key not in bucket
            bucket[key] = value
        copy: LiveMap[V] = LiveMap.__new__(LiveMap)
        copy._count = count
        crowded = count > 4 * _BUCKET * len(buckets)
        items = (item for bucket in buckets for item in bucket.items())
        copy._buckets = _spread(items, count) if crowded else tuple(buckets)
        return copy


def _spread(items: Iterable[tuple[str, V]], count: int) -> tuple[dict[str, V], ...]:
    size = max(_SMALLEST, count // _BUCKET)
    buckets: list[dict[str, V]] = [{} for _ in range(size)]
    for key, value in items:
        buckets[hash(key) % size][key] = value
    return tuple(buckets)
