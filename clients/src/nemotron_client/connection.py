"""A gRPC channel to one server: plain, with TLS or mutual TLS, and the secret that goes with every request."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import grpc

from nemotron_client import wire
from nemotron_client.errors import ClientError

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_OPTIONS = [
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # http_proxy is for the web; an inference server is near.
    ("grpc.enable_http_proxy", 0),
]


def open_channel(
    url: str, root_ca: str | Path | None, client_cert: str | Path | None, client_key: str | Path | None
) -> Any:
    """A channel to *url*, with TLS where a root certificate is named; all are PEM files, by default the environment's.

    Raises `ClientError` when one cannot be used.
    """
    root = _pem(root_ca, "NEMOTRON_ROOT_CA")
    cert = _pem(client_cert, "NEMOTRON_CLIENT_CERT")
    key = _pem(client_key, "NEMOTRON_CLIENT_KEY")
    if (cert is None) != (key is None):
        raise ClientError("a client certificate and its key go together; give client_cert and client_key")
    if root is None:
        if cert is not None:
            raise ClientError("a client certificate goes with TLS; give root_ca, who signed the server's certificate")
        return grpc.insecure_channel(url, options=_OPTIONS)
    return grpc.secure_channel(url, grpc.ssl_channel_credentials(root, key, cert), options=_OPTIONS)


def metadata(secret: str | None) -> tuple[tuple[str, str], ...]:
    """What goes with every request; *secret* is by default the environment's `NEMOTRON_SECRET`."""
    secret = secret or os.environ.get("NEMOTRON_SECRET")
    if not secret:
        return ()
    if not re.fullmatch(r"[!-~]+", secret):
        raise ClientError("the secret holds characters that are not visible ASCII; no server has such a one")
    return ((f"triton-grpc-protocol-{wire.SECRET_HEADER}", secret),)


def _pem(file: str | Path | None, variable: str) -> bytes | None:
    if not (path := file or os.environ.get(variable)):
        return None
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ClientError(f"cannot read {path}: {error.strerror}") from error
    # gRPC would say so on stderr, and then that the server is not available.
    if b"-----BEGIN " not in text:
        raise ClientError(f"{path} is not a PEM file")
    return text
