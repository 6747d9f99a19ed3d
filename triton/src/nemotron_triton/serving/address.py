"""Where tritonserver takes gRPC, for traces: read from the arguments it was started with, so it need not be ours."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

_DEFAULT_PORT = 8001
# Either of them is in the arguments of every tritonserver.
_REPOSITORIES = ("--model-repository", "--model-store")
_EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not listened on


def own_address() -> tuple[str, int] | None:
    """Host and gRPC port of the tritonserver that started this process; None where that cannot be seen."""
    try:
        raw = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return None
    return grpc_address(raw.decode(errors="replace").split("\0"), socket.gethostname())


def grpc_address(arguments: Sequence[str], host_name: str) -> tuple[str, int] | None:
    """Host and gRPC port of a tritonserver with *arguments*, None where they are not one's.

    Where it listens on every address, its host is *host_name*.
    """
    values: dict[str, str] = {}
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, is_whole, value = argument.partition("=")
        values[name] = value if is_whole else following
    if not any(name in values for name in _REPOSITORIES):
        return None
    host, port = values.get("--grpc-address", "").strip("[]"), values.get("--grpc-port", str(_DEFAULT_PORT))
    return (host_name if host in _EVERY_ADDRESS else host, int(port)) if port.isdecimal() else None
