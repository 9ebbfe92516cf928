"""Ctrl-C and SIGTERM: what a run, a query and a replay make of them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from lodestream.cli.call import Call

_INTERRUPTED = 130
STOPPING = "stopping after the"
"""Begins what is said when a signal has come."""


class Interrupt:
    """Watches for the two signals while the `with` block runs.

    Args:
        call: where to say what happens.
        stop: asks the run to end; called from a thread of its own, again and again until the block is left, so that
            a signal between two steps of its start is not lost.
        what: what is finished first, for the message.
        at_once: what a second signal does before the process ends; it runs in the middle of anything.
    """

    def __init__(
        self, call: Call, stop: Callable[[], None], what: str = "batches", at_once: Callable[[], None] = lambda: None
    ) -> None:
        self._call = call
        self._at_once = at_once
        self._what = what
        self._stop = stop
        self._left = threading.Event()
        self._before: dict[int, Any] = {}
        self._asking: threading.Thread | None = None
        self.seen = False

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if self._asking is not None:
            self._asking.join()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.seen:
            self._at_once()
            os._exit(_INTERRUPTED)
        self.seen = True
        # A handler runs in the middle of anything, so it takes no lock and prints nothing itself.
        self._asking = threading.Thread(target=self._ask, name="interrupt", daemon=True)
        self._asking.start()

    def _ask(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # whoever listened is gone
            self._call.say(f"{STOPPING} {self._what} under way; once more stops at once")
        while not self._left.is_set():
            self._stop()
            self._left.wait(0.05)


def leave_on_interrupt(work: Callable[[], None]) -> None:
    """Do `work`, which changes nothing that matters, so that Ctrl-C ends the process at once.

    DuckDB does not look at signals while it computes, so the work is on another thread and this one waits.
    Errors of the work are raised here.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed over to the waiting thread, which raises it
            failed.append(error)

    thread = threading.Thread(target=run, name="work", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)
    if failed:
        raise failed[0]
