"""Puts whoever was not let in into the audit log; a flood of them is one record in ten seconds for each address."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping

from lodestream.errors import TransientError
from lodestream.ports.authority import Event

_SPAN_S = 10.0
_KNOWN_MAX = 10_000
TEXT_MAX = 200


class TurnedAway:
    """Counts refusals by door, address and reason, and records the first of each in every ten seconds.

    Args:
        record: appends to the audit log. That it cannot is no reason to let anybody in, so it changes nothing here.
        clock: seconds from any beginning.
    """

    def __init__(self, record: Callable[[Event], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._record, self._clock = record, clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, str], tuple[float, int]] = {}

    async def note(self, door: str, name: str, address: object, reason: str, **detail: str) -> None:
        """Somebody was not let in.

        Args:
            door: where they came.
            name: who they say they are; empty when it is not known.
            address: where they came from.
            reason: what they were told.
            **detail: further facts.
        """
        where = "" if address is None else str(address)
        more = self._counted((door, where, reason))
        if more is not None:
            told: Mapping[str, str | int | float | None] = {"address": where, "why": reason[:TEXT_MAX], **detail}
            told = {**told, **({"more": more} if more else {})}
            await asyncio.to_thread(self._write, Event(name[:TEXT_MAX], "", door, "sign in", "refused", detail=told))

    def _counted(self, key: tuple[str, str, str]) -> int | None:
        """How many were like this since the last record; None when it is too early for another."""
        now = self._clock()
        with self._lock:
            last, more = self._known.get(key, (now - _SPAN_S, 0))
            if now - last < _SPAN_S:
                self._known[key] = last, more + 1
                return None
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[key] = now, 0
            return more

    def _write(self, event: Event) -> None:
        with contextlib.suppress(TransientError):
            self._record(event)
