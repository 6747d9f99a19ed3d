"""The addresses that a server is to listen on: names become numbers, and what tritonserver would mistake is refused.

Its HTTP server takes a name for 255.255.255.255, and an IPv6 address with an interface for every address of the
machine (seen with 2.51).
"""

from __future__ import annotations

import errno
import socket

from nemotron_triton.errors import ServerError

_HTTP = ("--http-port", "--metrics-port")


def resolve(host: str, port: int, option: str) -> str:
    """The number of *host*; `ServerError` where nothing can listen at its *port*, which *option* sets."""
    # The flag of gRPC's host is plain `--host`.
    flag = option.replace("grpc-", "").replace("port", "host")
    if not host:
        # To the operating system that means every address.
        raise ServerError(f"there is no address to listen on at port {port}", f"give {flag} one; 0.0.0.0 means all")
    if host.startswith(("unix:", "unix-abstract:", "/")):
        raise ServerError(f"cannot listen on {host}: tritonserver needs an address and a port", f"give {flag} one")
    remedy = f"give {flag} an address of this machine"
    if "%" in host and option in _HTTP:
        raise ServerError(f"cannot listen on {host}: tritonserver's HTTP knows no interfaces of IPv6", remedy)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ServerError(f"cannot listen on {host}: {getattr(error, 'strerror', None) or error}", remedy) from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except (OSError, OverflowError) as error:
            if getattr(error, "errno", None) != errno.EADDRNOTAVAIL:
                remedy = f"choose another {option}"
            reason = getattr(error, "strerror", None) or error
            raise ServerError(f"cannot listen on {join(host, port)}: {reason}", remedy) from error
    return host if "%" in host else str(address[0])


def join(host: str, port: int) -> str:
    """`host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
