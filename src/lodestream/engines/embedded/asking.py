"""Asks questions beside a flow: bounded, patient, each until it has an answer on disk.

One thread decides everything and is alone with its variables; the exchanges themselves run on a pool. The flow only
says which questions it waits for, and is told when answers are durable.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import queue
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Thread
from typing import Any

from lodestream.engines.embedded.ledger import Entry, Ledger
from lodestream.engines.embedded.locks import try_lock
from lodestream.errors import LodestreamError, TransientError
from lodestream.lake.disk import Disk, random_id, settle, write_placed
from lodestream.model.steps import Ask
from lodestream.ports.enricher import Answer, SlowEnricher

_RECORD_PAUSE_S = 0.05
"""Answers that come within it are one group; the first one after a pause does not wait."""
_AGAIN_S, _AGAIN_MAX_S = 0.2, 30.0
_OUTAGE_AFTER = 5
"""So many failures one after the other, whatever was asked, and nothing is asked for a while."""
_REST_S, _REST_MAX_S = 1.0, 30.0
_CATCH_UP_S = 0.1
"""Whoever asks by a rate makes up for so much time lost, not for more."""
_CLAIM_EVERY_S = 0.5
_GRACE_S = 2.0
_LOOK_S = 0.5


class Asker:
    """Asks what a flow waits for, and records the answers in its ledger.

    Of several processes that run one flow, one asks: the one that holds the ledger's lock.

    Args:
        step: bounds of asking.
        enricher: whom to ask; closed with the asker.
        ledger: where answers go.
        folder: of the ledger, for the lock and the note on outages.
        disk: seam for the note.
        told: called, on the asker's thread, when answers have become durable.
    """

    def __init__(
        self, step: Ask, enricher: SlowEnricher, ledger: Ledger, folder: str, disk: Disk, told: Callable[[], None]
    ) -> None:
        self.error: LodestreamError | None = None
        self._step, self._enricher, self._ledger, self._told = step, enricher, ledger, told
        self._folder, self._disk = folder, disk
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(step.parallel, thread_name_prefix="asking")
        self._recorder = ThreadPoolExecutor(1, thread_name_prefix="recording")
        self._wanted: dict[str, str] = {}
        self._ready: deque[str] = deque()
        self._later: list[tuple[float, str]] = []
        self._tries: dict[str, int] = {}
        self._under_way: dict[str, Future[Answer]] = {}
        self._done: list[Entry] = []
        self._unrecorded: set[str] = set()
        self._recording: list[Entry] = []
        self._record_from = 0.0
        self._failures = self._throttled = 0
        self._rest_s, self._resting_until, self._paused_until = _REST_S, 0.0, 0.0
        self._next_at = 0.0
        self._claimed: int | None = None
        self._claim_at = 0.0
        self._noted: str | None = None
        self._closing = False
        self._random = random.Random()
        self._thread = Thread(target=self._run, name="asker", daemon=True)
        self._thread.start()

    # --- for the flow's thread ---------------------------------------------------------------------------------------

    def want(self, questions: Mapping[str, str], *, only: bool = False) -> None:
        """Ask these too, by key; with `only`, forget all others that are not under way."""
        if questions or only:
            self._inbox.put(partial(self._want, dict(questions), only=only))

    def forget(self, keys: Iterable[str]) -> None:
        """Nobody waits for these any more; what is under way is still recorded."""
        if gone := list(keys):
            self._inbox.put(partial(self._forget, gone))

    def check(self) -> None:
        """Raise what went wrong on our side, if anything did: a damaged ledger, an enricher that breaks."""
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Begin nothing more, give what is under way two seconds, record it; twice is harmless."""
        if self._thread.is_alive():
            self._inbox.put(self._close)
            self._thread.join()

    # --- the one thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                self._claim()
                self._begin()
                self._record()
                self._take(self._pause())
            self._finish()
        except LodestreamError as error:
            self.error = error
            self._told()
        finally:
            if not self._closing and self.error is None:
                self.error = LodestreamError("asking ended unexpectedly, please report it")
            self._enricher.close()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._recorder.shutdown(wait=True)
            if self._claimed is not None:
                os.close(self._claimed)

    def _take(self, seconds: float) -> None:
        """Do what was put into the inbox, waiting so long for the first."""
        try:
            self._inbox.get(timeout=max(0.0, seconds))()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            return

    def _finish(self) -> None:
        self._note(None)
        until = time.monotonic() + _GRACE_S
        for future in self._under_way.values():
            future.cancel()
        while any(future.running() for future in self._under_way.values()) and (left := until - time.monotonic()) > 0:
            self._take(min(left, _LOOK_S))
        self._enricher.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._take(0.0)
        self._recorder.shutdown(wait=True)
        self._take(0.0)
        if self._done and not self._recording:
            with contextlib.suppress(TransientError):
                self._ledger.record(self._done)

    def _close(self) -> None:
        self._closing = True

    def _want(self, questions: Mapping[str, str], *, only: bool) -> None:
        if only:
            self._forget([key for key in self._wanted if key not in questions])
        for key, question in questions.items():
            if key not in self._wanted:
                self._wanted[key] = question
                if key not in self._under_way and key not in self._unrecorded:
                    self._ready.append(key)

    def _forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._wanted.pop(key, None)
            self._tries.pop(key, None)

    def _claim(self) -> None:
        """Try to become the one that asks."""
        if self._claimed is not None or not self._wanted or time.monotonic() < self._claim_at:
            return
        self._claim_at = time.monotonic() + _CLAIM_EVERY_S
        settle(self._disk, self._folder)
        place = self._disk.beside(self._folder)
        os.makedirs(place, exist_ok=True)
        self._claimed = try_lock(os.path.join(place, "asking.lock"), 0o666)
        if self._claimed is not None:
            self._ledger.refresh()  # whoever asked before us may have recorded since
            self._noted = trouble(self._disk, self._folder)  # and died during an outage

    def _begin(self) -> None:
        """Put as many questions under way as is allowed now."""
        if self._claimed is None:
            return
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[1])
        if now < max(self._resting_until, self._paused_until):
            return
        probing = self._failures >= _OUTAGE_AFTER
        while self._ready and len(self._under_way) < (1 if probing else self._step.parallel):
            if self._step.rate_per_s is not None and self._next_at > now:
                return
            key = self._ready.popleft()
            question = self._wanted.get(key)
            if question is None or key in self._under_way or key in self._unrecorded:
                continue
            if self._ledger.has(key):
                self._wanted.pop(key)
                continue
            if self._step.rate_per_s is not None:
                self._next_at = max(self._next_at, now - _CATCH_UP_S) + 1.0 / self._step.rate_per_s
            self._tries[key] = self._tries.get(key, 0) + 1
            future = self._pool.submit(self._enricher.ask, question, key)
            self._under_way[key] = future
            future.add_done_callback(partial(self._answered, key))

    def _answered(self, key: str, future: Future[Answer]) -> None:
        """On the pool's thread: hand over to ours."""
        self._inbox.put(partial(self._judge, key, future))

    def _judge(self, key: str, future: Future[Answer]) -> None:
        self._under_way.pop(key, None)
        if future.cancelled():
            return
        if (broken := future.exception()) is not None:
            raise LodestreamError("enricher broke, please report it", cause=repr(broken)) from broken
        answer = future.result()
        tries = self._tries.get(key, 1)
        if answer.later is None:
            self._recovered()
            self._wanted.pop(key, None)
            self._tries.pop(key, None)
            self._unrecorded.add(key)
            self._done.append(Entry(key, answer.text, answer.refusal, tries))
            return
        now = time.monotonic()
        wait_s = min(_AGAIN_MAX_S, _AGAIN_S * 2 ** min(tries - 1, 10)) * self._random.uniform(0.5, 1.0)
        if answer.outage:
            self._failed(answer.later, now)
        elif answer.retry_after_s is None:
            self._throttled += 1
            pause_s = min(_AGAIN_MAX_S, _AGAIN_S * 2 ** min(self._throttled - 1, 10)) * self._random.uniform(0.5, 1.0)
            self._paused_until = max(self._paused_until, now + pause_s)
        if answer.retry_after_s is not None:
            wait_s = max(wait_s, answer.retry_after_s)
            self._paused_until = max(self._paused_until, now + answer.retry_after_s)
        if key in self._wanted:
            heapq.heappush(self._later, (now + wait_s, key))

    def _failed(self, reason: str, now: float) -> None:
        """Count a failure that says nothing of the question; after a few of them, rest."""
        self._failures += 1
        if self._failures >= _OUTAGE_AFTER and now >= self._resting_until:
            self._resting_until = now + self._rest_s * self._random.uniform(0.8, 1.0)
            self._rest_s = min(_REST_MAX_S, self._rest_s * 2)
            self._note(reason)

    def _recovered(self) -> None:
        """Somebody answers: what was put off for an outage is asked at once."""
        if self._failures >= _OUTAGE_AFTER:
            self._ready.extend(key for _, key in sorted(self._later))
            self._later.clear()
        self._failures = self._throttled = 0
        self._rest_s, self._resting_until = _REST_S, 0.0
        self._note(None)

    def _record(self) -> None:
        """Make answers durable, one group at a time, on the recorder's thread."""
        if self._recording or not self._done or time.monotonic() < self._record_from:
            return
        self._recording, self._done = self._done, []
        self._record_from = time.monotonic() + _RECORD_PAUSE_S
        future = self._recorder.submit(self._ledger.record, self._recording)
        future.add_done_callback(lambda done: self._inbox.put(partial(self._recorded, done)))

    def _recorded(self, future: Future[None]) -> None:
        error = future.exception()
        if isinstance(error, TransientError):
            self._done, self._record_from = [*self._recording, *self._done], time.monotonic() + error.retry_after_s
        elif error is not None:
            raise error
        else:
            self._unrecorded.difference_update(entry.question for entry in self._recording)
            self._told()
            if not self._closing:
                self._recorder.submit(self._ledger.tidy)
        self._recording = []

    def _pause(self) -> float:
        """How long nothing is to be done unless somebody tells us."""
        now = time.monotonic()
        times = [now + _LOOK_S if self._claimed is None and self._wanted else now + 60.0]
        if self._done and not self._recording:
            times.append(self._record_from)
        if self._later:
            times.append(self._later[0][0])
        if self._ready and len(self._under_way) < self._step.parallel and self._claimed is not None:
            times.append(max(self._resting_until, self._paused_until, self._next_at if self._step.rate_per_s else 0.0))
            if self._failures >= _OUTAGE_AFTER and self._under_way:
                times.pop()  # the one that finds out will tell
        return min(times) - now

    def _note(self, trouble: str | None) -> None:
        """Leave word of an outage beside the ledger for `status`; nothing hangs on it."""
        if trouble == self._noted:
            return
        self._noted = trouble
        path = trouble_path(self._folder)
        with contextlib.suppress(LodestreamError, FileNotFoundError):
            if trouble is None:
                self._disk.unlink(path)
            else:
                written = f"{path}.{random_id()}"
                write_placed(self._disk, written, json.dumps({"trouble": trouble}).encode())
                self._disk.replace(written, path)


def trouble_path(folder: str) -> str:
    """The file beside a ledger that says why nobody answers, while that is so."""
    return os.path.join(folder, "trouble.json")


def trouble(disk: Disk, folder: str) -> str | None:
    """Why nobody answers, None when that is not known to be so."""
    try:
        told: dict[str, Any] = json.loads(disk.read(trouble_path(folder)))
        return str(told["trouble"])
    except (FileNotFoundError, ValueError, KeyError, LodestreamError):
        return None
