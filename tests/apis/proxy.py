"""A TCP proxy that cuts connections: before the request is through, after it, or within the answer."""

import contextlib
import random
import socket
import threading


class CuttingProxy:
    """Passes bytes to a port that may change, and cuts a share of connections at random places.

    Args:
        seed: of the places.
        share: of pieces after which a connection is cut.
    """

    def __init__(self, seed: int, share: float) -> None:
        self.target = 0
        self.cuts = 0
        self._share = share
        self._draw = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._closing = False
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(30)
        for thread in self._threads:
            thread.join(30)

    def _accept(self) -> None:
        while not self._closing:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=10)
            except OSError:
                near.close()
                continue
            for one, other in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pass, args=(one, other), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                if self._draw.random() < self._share:
                    self.cuts += 1
                    target.sendall(piece[: self._draw.randrange(len(piece) + 1)])
                    break
                target.sendall(piece)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
