"""Names for the processes that share a flow: the same one again after a restart, and free as soon as a process dies."""

from __future__ import annotations

import os
import socket

from lodestream.engines.embedded.locks import try_lock
from lodestream.errors import ConfigError

MEMBERS_MAX = 64


class Membership:
    """Hands out `HOST-NUMBER`: the lowest number on this host whose lock nobody holds.

    Args:
        folder: where the locks lie; the flow's own, on a disk of this host.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._host = socket.gethostname().replace("/", "_")
        self._held: int | None = None

    def join(self) -> str:
        """A name that no living process of this host has.

        Raises:
            ConfigError: there are too many.
        """
        os.makedirs(self._folder, exist_ok=True)
        for number in range(MEMBERS_MAX):
            name = f"{self._host}-{number}"
            held = self._lock(name)
            if held is not None:
                self._held = held
                return name
        raise ConfigError("too many processes share one table", members_max=MEMBERS_MAX)

    def is_dead(self, name: str) -> bool:
        """Whether no process has this name; never of members on other hosts, which cannot be seen from here."""
        if name.rpartition("-")[0] != self._host:
            return False
        held = self._lock(name)
        if held is not None:
            os.close(held)
        return held is not None

    def leave(self) -> None:
        """Give the name back; twice is harmless."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _lock(self, name: str) -> int | None:
        return try_lock(os.path.join(self._folder, name))
