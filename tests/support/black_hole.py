"""A TCP proxy that can stop to forward without closing anything, as a machine that vanished."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator


class BlackHole:
    """Forwards connections to *port*; while the hole is open it swallows what comes, on both sides.

    A connection that was there when the hole opened is never heard of again, also when it closes. `swallowed` counts
    the bytes, `connections` how many were made.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._opened = False
        self._stopped = False
        self.swallowed = 0
        self.connections = 0
        # The other end of each; None where nothing is forwarded any more.
        self._peers: dict[socket.socket, socket.socket | None] = {}
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._forward, daemon=True)
        self._thread.start()

    def open(self) -> None:
        """Swallow everything from now on."""
        with self._lock:
            self._opened = True
            self._peers = dict.fromkeys(self._peers)

    def close(self) -> None:
        """Forward connections that are made from now on."""
        self._opened = False

    def stop(self) -> None:
        """End the proxy and its connections."""
        self._stopped = True
        self._thread.join()
        for end in (*self._peers, self._listening):
            end.close()
        self._selector.close()

    def _forward(self) -> None:
        while not self._stopped:
            for key, _ in self._selector.select(0.02):
                with self._lock:
                    if key.fileobj is self._listening:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket):
                        self._pass_on(key.fileobj)

    def _accept(self) -> None:
        near, _ = self._listening.accept()
        far = socket.create_connection(("127.0.0.1", self._port))
        self.connections += 1
        for end, other in ((near, far), (far, near)):
            self._peers[end] = None if self._opened else other
            self._selector.register(end, selectors.EVENT_READ)

    def _pass_on(self, end: socket.socket) -> None:
        try:
            data = end.recv(1 << 16)
        except OSError:
            data = b""
        peer = self._peers[end]
        if not data:
            self._selector.unregister(end)
        if peer is None:
            self.swallowed += len(data)
            return
        with contextlib.suppress(OSError):
            if data:
                peer.sendall(data)
            else:
                peer.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def black_hole(port: int) -> Iterator[BlackHole]:
    """A proxy to *port* that forwards until it is opened."""
    hole = BlackHole(port)
    try:
        yield hole
    finally:
        hole.stop()
