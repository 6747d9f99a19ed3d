"""Servers that are not what a client takes them for: web servers, proxies, and gRPC behind TLS."""

from __future__ import annotations

import contextlib
import http.server
import socketserver
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import trustme

_PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
_DATA, _HEADERS, _SETTINGS = 0, 1, 4


@contextlib.contextmanager
def _served(server: socketserver.TCPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Page(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def web_server() -> Iterator[str]:
    """The address of a server of HTTP/1.1."""
    with _served(http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)) as url:
        yield url


@contextlib.contextmanager
def http2_proxy(status: int) -> Iterator[str]:
    """The address of a proxy that answers every request of HTTP/2 with *status* and a page."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.read(_PREFACE)
            self._send(_SETTINGS, 0, 0)
            while head := self.rfile.read(9):
                length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                stream = int.from_bytes(head[5:], "big")
                self.rfile.read(length)
                if kind == _SETTINGS and not flags & 1:
                    self._send(_SETTINGS, 1, 0)
                if kind == _HEADERS:
                    # Literals of HPACK: ":status" has the index 8, "content-type" 31.
                    fields = b"\x08\x03%d" % status + b"\x0f\x10\x09text/html"
                    self._send(_HEADERS, 4, stream, fields)
                    self._send(_DATA, 1, stream, b"<html>nothing here</html>")

        def _send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
            self.wfile.write(struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream))
            self.wfile.write(payload)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with _served(Server(("127.0.0.1", 0), Handler)) as url:
        yield url


@contextlib.contextmanager
def tls_server(certificate: trustme.LeafCert, client_ca: trustme.CA | None = None) -> Iterator[str]:
    """The address of a gRPC server with *certificate*, which lets those in whose own one *client_ca* signed."""
    server = grpc.server(ThreadPoolExecutor(2))
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), b"".join(pem.bytes() for pem in certificate.cert_chain_pems))],
        root_certificates=client_ca.cert_pem.bytes() if client_ca else None,
        require_client_auth=client_ca is not None,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
