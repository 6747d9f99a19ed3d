"""Free ports."""

from __future__ import annotations

import contextlib
import secrets
import socket


def free_ports(count: int) -> list[int]:
    """Ports that are free now, below those (32768 and up) that the kernel gives to connections."""
    free: set[int] = set()
    while len(free) < count:
        port = 20_000 + secrets.randbelow(12_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            free.add(port)
    return list(free)
