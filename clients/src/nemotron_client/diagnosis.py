"""Why a server could not be reached, in words that say what to do: found with a connection of our own.

gRPC says "Socket closed" where a server wants TLS, or a certificate, or speaks HTTP/1.1. This looks once, when a
request has failed for good, and does not know what gRPC said.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

from nemotron_client.settings import UNIX, Credentials, split_address

_TIMEOUT_S = 1.0
# How HTTP/2 begins: the preface, and empty settings. A server answers with its own settings, whose type is 4.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_NOT_GRPC = "that is not gRPC, but HTTP or something else; gRPC's port is 8001 unless the server has another"
# X509_V_ERR_ of OpenSSL.
_NOT_YET_VALID, _EXPIRED, _OTHER_HOST, _OTHER_IP = 9, 10, 62, 64


def why_unreachable(url: str, credentials: Credentials, authority: str | None) -> str:
    """What is wrong with *url*, in a line without its name; empty where nothing is found.

    *authority* is the name that its certificate must have, where that is not the host of *url*.
    """
    try:
        if credentials.root:
            return _with_tls(url, credentials, authority or _host(url))
        return _without_tls(url)
    except socket.gaierror:
        return f"nobody knows the name {_host(url)}"
    except (ConnectionRefusedError, FileNotFoundError):
        return (
            "nothing listens there; is the server running, or still loading its model? "
            "start it with `nemotron serve BUNDLE`"
        )
    except TimeoutError:
        return "nothing answers there: another address, or a firewall?"
    except OSError as error:
        return str(error.strerror or error)


def _without_tls(url: str) -> str:
    answer = _answer(url)
    if _is_http2(answer):
        return ""
    if answer.startswith(b"HTTP/") or not _is_tls(url):
        return _NOT_GRPC
    return "it wants TLS; give root_ca, --root-ca or NEMOTRON_ROOT_CA, the authority that signed its certificate"


def _with_tls(url: str, credentials: Credentials, host: str) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=(credentials.root or b"").decode("ascii", "replace"))
    context.set_alpn_protocols(["h2"])
    try:
        with _connected(url) as plain, context.wrap_socket(plain, server_hostname=host) as connection:
            if _is_http2(_hello(connection)):
                return ""
    except ssl.SSLCertVerificationError as error:
        return _untrusted(error, host)
    except (ssl.SSLError, ConnectionError):
        answer = _answer(url)
        if _is_http2(answer):
            return "it speaks no TLS; leave out root_ca, --root-ca and NEMOTRON_ROOT_CA"
        if answer.startswith(b"HTTP/") or not _is_tls(url):
            return _NOT_GRPC
    # It is trusted, and hangs up.
    if credentials.cert:
        return "it does not take this client certificate: it trusts another authority, or the certificate has expired"
    return (
        "it wants a client certificate; give client_cert and client_key, "
        "--client-cert and --client-key, or NEMOTRON_CLIENT_CERT and NEMOTRON_CLIENT_KEY"
    )


def _untrusted(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code == _EXPIRED:
        return "its certificate has expired; the server needs a new one"
    if error.verify_code == _NOT_YET_VALID:
        return "its certificate is not valid yet; is the clock of this machine right?"
    if error.verify_code in (_OTHER_HOST, _OTHER_IP):
        return f"its certificate is not for {host}; address it by a name that its certificate has"
    return (
        "its certificate was not signed by the authority that was given; "
        "root_ca, --root-ca or NEMOTRON_ROOT_CA must name the file of the one that did"
    )


def _answer(url: str) -> bytes:
    """The first bytes of *url* for one that begins with HTTP/2, without TLS."""
    with _connected(url) as connection:
        return _hello(connection)


def _is_tls(url: str) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with _connected(url) as plain:
            context.wrap_socket(plain).close()
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except ConnectionError:
        return False
    return True


def _hello(connection: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionError):
        connection.sendall(_HELLO)
    return _received(connection)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(64)
    except (ssl.SSLError, ConnectionError):
        return b""


def _is_http2(answer: bytes) -> bool:
    return answer[3:4] == b"\4"


@contextlib.contextmanager
def _connected(url: str) -> Iterator[socket.socket]:
    if url.startswith(UNIX):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_TIMEOUT_S)
        with connection:
            connection.connect(url.removeprefix(UNIX))
            yield connection
        return
    with socket.create_connection(split_address(url), _TIMEOUT_S) as connection:
        yield connection


def _host(url: str) -> str:
    return "localhost" if url.startswith(UNIX) else split_address(url)[0]
