"""The sockets that a gateway listens on."""

from __future__ import annotations

import socket

from nemotron_gateway.errors import SettingError

_BACKLOG = 2048


def listen(host: str, port: int) -> list[socket.socket]:
    """One for each address of *host*; `SettingError` where the port is taken or the host is not of this machine."""
    where = f"{host}:{port}"
    try:
        infos = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise SettingError(f"cannot listen on {where}: nobody knows the name {host}") from error
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(infos):
            listening = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
    except OSError as error:
        for listening in sockets:
            listening.close()
        raise SettingError(f"cannot listen on {where}: {error.strerror}; choose another port") from error
    return sockets
