"""The line that a client has for each of the likeliest mistakes, against real endpoints of the wrong kind."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from client_twins import Ask, ask_client, both_clients
from foreign_servers import http2_proxy, tls_server, web_server
from nemotron_client import AccessDenied, Client, ClientError, InvalidRequest, RequestRejected, ServerUnavailable
from nemotron_client.diagnosis import why_unreachable
from nemotron_client.settings import Credentials
from ports import free_ports
from scripted_server import HI, ScriptedServer, answer, failure, scripted_server
from served import nemotron

NOT_GRPC = "that is not gRPC, but HTTP or something else; gRPC's port is 8001"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def root_ca(ca: trustme.CA, tmp_path: Path) -> str:
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


def complaint(ask: Ask, url: str, **settings: Any) -> str:
    """The line of the error that a client of *url* raises, behind its address."""
    with pytest.raises(ServerUnavailable) as caught:
        ask(url, HI, settings)
    line = str(caught.value)
    assert line.startswith(f"{url} is not available: ")
    assert "\n" not in line
    return line.removeprefix(f"{url} is not available: ")


@both_clients
def test_a_port_of_http_is_not_grpc(ask: Ask, root_ca: str) -> None:
    with web_server() as url:
        assert complaint(ask, url).startswith(NOT_GRPC)
        assert complaint(ask, url, root_ca=root_ca).startswith(NOT_GRPC)


def test_a_server_of_something_else_is_not_grpc(root_ca: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"127.0.0.1:{listening.getsockname()[1]}"
        listening.settimeout(0)

        silent = why_unreachable(url, Credentials(), None)

    assert silent == "nothing answers there: another address, or a firewall?"


@both_clients
def test_tls_at_one_end_alone_is_told_apart(ask: Ask, ca: trustme.CA, root_ca: str) -> None:
    with tls_server(ca.issue_cert("127.0.0.1")) as url:
        assert complaint(ask, url).startswith("it wants TLS; give root_ca, --root-ca or NEMOTRON_ROOT_CA")
    with tls_server(ca.issue_cert("127.0.0.1"), client_ca=ca) as url:
        assert complaint(ask, url).startswith("it wants TLS; give root_ca, --root-ca or NEMOTRON_ROOT_CA")
    with scripted_server(lambda request, context: answer("ja")) as server:
        assert complaint(ask, server.url, root_ca=root_ca).startswith("it speaks no TLS; leave out root_ca")


@pytest.mark.parametrize(
    ("issue", "expected"),
    [
        (
            lambda _: trustme.CA().issue_cert("127.0.0.1"),
            "its certificate was not signed by the authority that was given",
        ),
        (
            lambda ca: ca.issue_cert(
                "127.0.0.1",
                not_before=datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
                not_after=datetime.datetime(2020, 2, 1, tzinfo=datetime.timezone.utc),
            ),
            "its certificate has expired; the server needs a new one",
        ),
        (lambda ca: ca.issue_cert("example.org"), "its certificate is not for 127.0.0.1; address it by a name"),
    ],
    ids=["another authority", "expired", "another name"],
)
def test_a_certificate_that_is_not_trusted_is_told_why(
    ca: trustme.CA, root_ca: str, issue: Callable[[trustme.CA], trustme.LeafCert], expected: str
) -> None:
    with tls_server(issue(ca)) as url:
        assert complaint(ask_client, url, root_ca=root_ca).startswith(expected)


def test_a_client_certificate_that_is_missing_or_strange_is_told_apart(
    ca: trustme.CA, root_ca: str, tmp_path: Path
) -> None:
    own = tmp_path / "stranger.pem"
    trustme.CA().issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(str(own))

    with tls_server(ca.issue_cert("127.0.0.1"), client_ca=ca) as url:
        missing = complaint(ask_client, url, root_ca=root_ca)
        strange = complaint(ask_client, url, root_ca=root_ca, client_cert=str(own), client_key=str(own))

    assert missing.startswith("it wants a client certificate; give client_cert and client_key")
    assert strange.startswith("it does not take this client certificate")


@both_clients
def test_where_nothing_listens_the_server_may_not_run_or_still_load(ask: Ask) -> None:
    url = f"127.0.0.1:{free_ports(1)[0]}"

    assert complaint(ask, url) == (
        "nothing listens there; is the server running, or still loading its model? "
        "start it with `nemotron serve BUNDLE`"
    )


def test_a_name_that_nobody_knows_is_told_so() -> None:
    assert complaint(ask_client, "nowhere.invalid:8001") == "nobody knows the name nowhere.invalid"


@both_clients
@pytest.mark.parametrize(
    ("status", "kind"), [(404, RequestRejected), (502, ServerUnavailable), (200, RequestRejected), (403, AccessDenied)]
)
def test_a_proxy_that_answers_in_place_of_the_server_is_named(ask: Ask, status: int, kind: type[ClientError]) -> None:
    with http2_proxy(status) as url, pytest.raises(kind) as caught:
        ask(url, HI)

    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{url} is a web server or a proxy that passes no gRPC on")


@both_clients
def test_a_server_that_loads_its_model_says_so(ask: Ask) -> None:
    # As tritonserver 2.51 says it.
    message = "Request for unknown model: 'nemotron' has no available versions"

    with (
        scripted_server(lambda request, context: iter([failure(message)])) as server,
        pytest.raises(ServerUnavailable, match="the server is loading its model, or could not"),
    ):
        ask(server.url, HI)


@both_clients
@pytest.mark.parametrize("secret", [None, "wrong"])
def test_a_server_that_wants_a_secret_is_one_line(ask: Ask, secret: str | None) -> None:
    def script(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        # As tritonserver 2.51 says it.
        context.abort(
            grpc.StatusCode.UNAVAILABLE,
            "This protocol is restricted, expecting header 'triton-grpc-protocol-nemotron-secret'",
        )
        yield

    with scripted_server(script) as server, pytest.raises(AccessDenied) as caught:
        ask(server.url, HI, {"secret": secret})

    what = "the secret is missing or wrong; give secret, --secret-file or NEMOTRON_SECRET"
    assert str(caught.value) == f"{server.url}: {what}"


def test_a_request_that_is_too_large_is_not_sent() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest, match="gRPC takes 67,108,864 in a message"):
        client.chat([{"role": "user", "content": "x" * (64 << 20)}])


@pytest.mark.parametrize("url", ["[::1]:{port}", "unix:{socket}", "unix://{socket}"])
def test_an_address_may_be_of_ipv6_or_of_a_socket_in_the_file_system(url: str, tmp_path: Path) -> None:
    server = ScriptedServer(
        lambda request, context: answer("ja"), addresses=("[::1]:0", f"unix:{tmp_path}/nemotron.sock")
    )
    with Client(url.format(port=server.ports[1], socket=tmp_path / "nemotron.sock")) as client:
        content = client.chat(HI).content
    server.stop()

    assert content == "ja"
    assert why_unreachable(f"unix:{tmp_path}/none.sock", Credentials(), None).startswith("nothing listens there")


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://host:8000", "give host:port without a scheme, of gRPC: host:8001"),
        ("https://host/v2", "give host:port without a scheme, of gRPC: host:8001, and root_ca for TLS"),
        ("http://[::1]:8000", r"without a scheme, of gRPC: \[::1\]:8001"),
        ("::1:8001", r"such as 127.0.0.1:8001 or \[::1\]:8001"),
        ("unix:run/it.sock", "the whole path of a socket"),
        ("unix://host/it.sock", "the whole path of a socket"),
    ],
)
def test_an_address_of_another_kind_is_refused_with_the_right_one(url: str, remedy: str) -> None:
    with pytest.raises(InvalidRequest, match=remedy):
        Client(url)


def test_chat_prints_the_same_line_and_nothing_of_grpc(ca: trustme.CA, root_ca: str) -> None:
    with tls_server(trustme.CA().issue_cert("127.0.0.1")) as url:
        result = nemotron("chat", "hi", f"--url={url}", f"--root-ca={root_ca}")

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {url} is not available: its certificate was not signed by")
