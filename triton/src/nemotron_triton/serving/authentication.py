"""Which caller sent a request, by the secret in its headers.

tritonserver forwards headers to the models as parameters of the request, which a caller may as well send itself: it
must for HTTP generate, where none are forwarded (triton-inference-server/server#8790, seen with 2.51). tritonserver
knows none of the secrets: they are in a file, which is read again when it changes, so that a caller who is struck from
it is refused from then on.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemotron_client import wire
from nemotron_triton.callers import Callers, caller_file
from nemotron_triton.errors import AccessError, RequestError, ServerError

# What tritonserver must forward, for gRPC and HTTP alike (RE2, matched within the name).
FORWARDED = f"(?i)^(traceparent|(triton-grpc-protocol-)?{wire.SECRET_HEADER}|{wire.CALLER_HEADER})$"
_SECRET_HEADERS = (f"triton-grpc-protocol-{wire.SECRET_HEADER}", wire.SECRET_HEADER)
_NAME = re.compile(r"[!-~]{1,64}")
# Clients know a refusal by "protocol is restricted", tritonserver's words, also those of before models checked secrets.
_DENIED = (
    "no secret, or a wrong one: this protocol is restricted to callers who send theirs in the header "
    f"{wire.SECRET_HEADER} (for HTTP generate in the parameter of that name)"
)
_log = logging.getLogger(__name__)


def forwarded_headers(request: Any) -> dict[str, str]:
    """The headers of a Triton request that tritonserver forwarded, by name in small letters."""
    try:
        parameters = json.loads(request.parameters() or "{}")
    except ValueError as error:
        raise RequestError("the request's parameters are not UTF-8") from error
    return {name.lower(): value for name, value in parameters.items() if isinstance(value, str)}


class Authentication:
    """Tells the caller of a request by *file*, where there is one; else everybody may call, and nobody has a name.

    Raises `ServerError` where the file cannot be used.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._stamp = _stamp(file) if file else None
        self._callers = Callers.read(file) if file else Callers({})

    @classmethod
    def named_in(cls, environment: Mapping[str, str] = os.environ) -> Authentication:
        """By the file that the environment names."""
        return cls(caller_file(environment))

    def names(self) -> frozenset[str]:
        """The callers that the file names; safe on any thread."""
        if self._file:
            self._read_again(self._file)
        return frozenset(caller.name for caller in self._callers.by_digest.values())

    def caller(self, headers: Mapping[str, str]) -> str:
        """The name of the caller, behind that of its gateway and a slash where it has one; `AccessError` if unknown.

        Raises `RequestError` where a gateway's name for its own caller cannot be used.
        """
        if not self._file:
            return ""
        self._read_again(self._file)
        secret = next((headers[name] for name in _SECRET_HEADERS if name in headers), "")
        if not (caller := self._callers.of(secret)):
            raise AccessError(_DENIED)
        behind = headers.get(wire.CALLER_HEADER) if caller.is_gateway else None
        if behind is None:
            return caller.name
        if not _NAME.fullmatch(behind):
            raise RequestError(f"the header {wire.CALLER_HEADER} must have 1 to 64 visible ASCII characters")
        return f"{caller.name}/{behind}"

    def _read_again(self, file: Path) -> None:
        """Take over a file that has changed; one that cannot be used changes nothing."""
        if (stamp := _stamp(file)) == self._stamp:
            return
        # Before the file is read: one that changes meanwhile is read once more.
        self._stamp = stamp
        try:
            self._callers = Callers.read(file)
        except ServerError as error:
            _log.error("the secrets stay as they were: %s", error)


def _stamp(file: Path) -> tuple[int, ...]:
    """What changes when *file* is written or replaced; it takes about 2 µs."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
