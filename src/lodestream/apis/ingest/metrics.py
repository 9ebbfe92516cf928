"""Counts of the ingest API in the Prometheus text format."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterable

from lodestream.apis.ingest.stream import Stream

_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)


class Metrics:
    """What was asked and answered since the start."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.records: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.replayed: Counter[str] = Counter()
        self._seconds = [0] * (len(_BOUNDS_S) + 1)
        self._seconds_sum = 0.0

    def acknowledged(self, stream: str, records: int, size: int, seconds: float) -> None:
        """Records are durable, `seconds` after the request came."""
        self.records[stream] += records
        self.bytes[stream] += size
        self._seconds[bisect.bisect_left(_BOUNDS_S, seconds)] += 1
        self._seconds_sum += seconds

    def exposition(self, streams: Iterable[Stream]) -> str:
        """All of it."""
        lines: list[str] = []

        def add(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> None:
            full = f"lodestream_ingest_{name}"
            lines.extend((f"# HELP {full} {text}", f"# TYPE {full} {kind}"))
            lines.extend(
                f"{full}{labels} {value:g}" if value % 1 else f"{full}{labels} {int(value)}"
                for labels, value in samples
            )

        found = list(streams)
        add("requests_total", "counter", "Requests by stream and status; of no stream when it is not known.",
            ((f'{{stream="{s}",status="{code}"}}', n) for (s, code), n in sorted(self.requests.items())))  # fmt: skip
        for name, text, counts in (
            ("records_total", "Records acknowledged.", self.records),
            ("bytes_total", "Bytes of the records acknowledged.", self.bytes),
            ("replayed_total", "Requests that were answered from an idempotency key.", self.replayed),
        ):
            add(name, "counter", text, ((f'{{stream="{s}"}}', n) for s, n in sorted(counts.items())))
        total = 0
        lines += [
            "# HELP lodestream_ingest_acknowledge_seconds From request to durable.",
            "# TYPE lodestream_ingest_acknowledge_seconds histogram",
        ]
        for bound, count in zip((*map(str, _BOUNDS_S), "+Inf"), self._seconds, strict=True):
            total += count
            lines.append(f'lodestream_ingest_acknowledge_seconds_bucket{{le="{bound}"}} {total}')
        lines += [
            f"lodestream_ingest_acknowledge_seconds_sum {self._seconds_sum:.6f}",
            f"lodestream_ingest_acknowledge_seconds_count {total}",
        ]
        gauges: tuple[tuple[str, str, Callable[[Stream], float]], ...] = (
            ("end", "Sequence number after the last record.", lambda s: s.writer.end),
            ("consumed", "Sequence number after the last record that the table has.", lambda s: s.consumed),
            ("backlog_bytes", "Bytes that the table has not taken in.", lambda s: s.backlog_bytes()),
            ("queued_bytes", "Bytes that wait for the disk.", lambda s: s.writer.queued_bytes),
            ("log_bytes", "Bytes of the log on disk.", lambda s: s.kept_bytes()),
        )
        for name, text, value in gauges:
            add(name, "gauge", text, ((f'{{stream="{s.name}"}}', value(s)) for s in found))
        return "\n".join(lines) + "\n"
