"""The one stream of a tab of the console: a snapshot, then what has changed, at most twice a second."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable

from lodestream.apis.console.overview import Frame, frame
from lodestream.apis.console.sight import Sight, Sights
from lodestream.apis.events import Event, json_event
from lodestream.model.access import Principal
from lodestream.model.live import LiveLake

_TICK_US = 500_000
_KEPT = 120
"""Moments of the past that somebody who was cut off can go on from: a minute."""
_SIGHTS_KEPT = 64


class Frames:
    """What there is to see, computed once a tick for all who may see the same.

    Args:
        live: the tables.
        clock: microseconds since 1970 UTC.
        boot: tells this server's ticks from those of another.
    """

    def __init__(self, live: LiveLake, clock: Callable[[], int], boot: str) -> None:
        self._live, self._clock, self.boot = live, clock, boot
        self._kept: OrderedDict[Sight, deque[tuple[int, Frame]]] = OrderedDict()
        self._locks: dict[Sight, asyncio.Lock] = {}
        self._texts: OrderedDict[tuple[int, int], tuple[Frame, Frame, str | None]] = OrderedDict()
        self.computed = 0

    async def now(self, sight: Sight) -> tuple[int, Frame]:
        """The tick, and what is seen at it."""
        lock = self._locks.setdefault(sight, asyncio.Lock())
        async with lock:
            tick = self._clock() // _TICK_US
            kept = self._kept.setdefault(sight, deque(maxlen=_KEPT))
            if not kept or kept[-1][0] != tick:
                kept.append((tick, await asyncio.to_thread(frame, self._live, sight, self._clock())))
                self.computed += 1
            self._kept.move_to_end(sight)
            while len(self._kept) > _SIGHTS_KEPT:
                gone, _ = self._kept.popitem(last=False)
                self._locks.pop(gone, None)
            return kept[-1]

    def at(self, sight: Sight, identity: str) -> Frame | None:
        """What was seen at the `id` of an event, if that is still known."""
        boot, _, number = identity.rpartition("-")
        if boot != self.boot or not number.isdigit():
            return None
        return next((found for tick, found in self._kept.get(sight, ()) if tick == int(number)), None)

    def text(self, before: Frame, after: Frame) -> str | None:
        """What has changed between two moments, as JSON; the same for all who saw both."""
        key = id(before), id(after)  # both are kept with the text, so no other frame can get their ids
        if key not in self._texts:
            told = after.since(before)
            self._texts[key] = before, after, None if told is None else json.dumps(told)
            while len(self._texts) > _KEPT:
                self._texts.popitem(last=False)
        return self._texts[key][2]


async def watch(
    frames: Frames,
    sights: Sights,
    principal: Principal,
    current: Callable[[Principal], Principal | None],
    last: str | None,
    project: str,
) -> AsyncGenerator[Event, None]:
    """Events for one tab: `overview`, then `delta`; whoever comes back with an `id` goes on from there.

    What somebody may know is looked at again each time, so a change of grants or policies gives them a new `overview`.

    Args:
        frames: what there is to see.
        sights: who may see what.
        principal: who watches.
        current: them as they are now; None when their credential has ended.
        last: `Last-Event-ID` of somebody who was cut off.
        project: the project's name.
    """
    sight: Sight | None = None
    before: Frame | None = None
    while (found := await asyncio.to_thread(current, principal)) is not None:
        now = await asyncio.to_thread(sights.of, found)
        if now != sight:
            before, sight = frames.at(now, last) if sight is None and last else None, now
        tick, after = await frames.now(now)
        identity = f"{frames.boot}-{tick}"
        if before is None:
            yield json_event(after.to_json(project), "overview", identity)
        elif before is not after:
            text = frames.text(before, after)
            if text is not None:
                yield Event(text, "delta", identity)
        before = after
        await asyncio.sleep(_TICK_US / 1e6)
    yield json_event({"reason": "the credential has ended"}, "end")
