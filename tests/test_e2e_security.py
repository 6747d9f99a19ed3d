"""Access to a server: TLS, mutual TLS, the shared secret, and the endpoints that are closed."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
import trustme
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from nemotron_client import AccessDenied, Client, ClientError, ServerUnavailable
from nemotron_triton.bundle import Bundle
from nemotron_triton.callers import Callers
from nemotron_triton.errors import ServerError
from nemotron_triton.server import ServeOptions
from nemotron_triton.tls import Tls
from running import Running, running, stubs

SECRET = "correct-horse-battery-staple"  # noqa: S105 - it protects nothing
HELLO = [{"role": "user", "content": "What is the capital of France?"}]


@dataclass(frozen=True)
class Certificates:
    """PEM files of a CA, of the server and the client that it signed, and of a client of another CA."""

    ca: Path
    cert: Path
    key: Path
    client: Path
    stranger: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    ca, foreign_ca = trustme.CA(), trustme.CA()
    server, client = ca.issue_cert("127.0.0.1"), ca.issue_cert("client@example.org")
    files = Certificates(*(folder / f"{name}.pem" for name in ("ca", "cert", "key", "client", "stranger")))
    ca.cert_pem.write_to_path(str(files.ca))
    server.cert_chain_pems[0].write_to_path(str(files.cert))
    server.private_key_pem.write_to_path(str(files.key))
    client.private_key_and_cert_chain_pem.write_to_path(str(files.client))
    foreign_ca.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(str(files.stranger))
    return files


@pytest.fixture(scope="module")
def guarded(bundle: Bundle, certificates: Certificates) -> Iterator[Running]:
    """A server with everything on: mutual TLS and the secret."""
    tls = Tls(cert=certificates.cert, key=certificates.key, client_ca=certificates.ca)
    with running(bundle, tls=tls, callers=Callers.parse(SECRET, "the test")) as server:
        yield server


@pytest.fixture
def connect(guarded: Running, certificates: Certificates) -> Callable[..., Client]:
    """A client of `guarded` with all credentials, except what the test changes."""

    def connect(secret: str | None = SECRET, ca: Path | None = certificates.ca, own: Path | None = None) -> Client:
        pair = own or certificates.client
        return Client(
            guarded.options.grpc_url, timeout_s=20, secret=secret, root_ca=ca, client_cert=pair, client_key=pair
        )

    return connect


def test_who_has_the_secret_and_a_certificate_is_answered(connect: Callable[..., Client]) -> None:
    with connect() as client:
        assert client.chat(HELLO, thinking=False).content


@pytest.mark.parametrize("by", ["options", "environment"])
def test_chat_connects_by_options_or_by_the_environment(
    guarded: Running, certificates: Certificates, tmp_path: Path, by: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    files = {"ROOT_CA": certificates.ca, "CLIENT_CERT": certificates.client, "CLIENT_KEY": certificates.client}
    options = [f"--{name.lower().replace('_', '-')}={file}" for name, file in files.items()]
    environment = {f"NEMOTRON_{name}": str(file) for name, file in files.items()} | {"NEMOTRON_SECRET": SECRET}
    command = [sys.executable, "-m", "nemotron_cli", "chat", "What is the capital of France?", "--thinking=off"]

    result = subprocess.run(
        [
            *command,
            f"--url={guarded.options.grpc_url}",
            *([*options, f"--secret-file={secret}"] if by == "options" else []),
        ],
        env=os.environ | (environment if by == "environment" else {}),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip()


@pytest.mark.parametrize("secret", ["", "wrong-horse-battery-staple", SECRET + "x", SECRET[:-1]])
def test_who_has_not_the_secret_is_refused_at_once(connect: Callable[..., Client], secret: str) -> None:
    with connect(secret=secret) as client:
        begin = time.monotonic()
        with pytest.raises(
            AccessDenied, match="the secret is missing or wrong; give secret, --secret-file or NEMOTRON_SECRET"
        ):
            client.chat(HELLO)

    # Long before the client's own time is up.
    assert time.monotonic() < begin + 10


def test_health_and_names_are_open_and_what_tells_of_others_is_closed(guarded: Running) -> None:
    def status(path: str) -> int:
        return ask_http(guarded.options, "GET", f"/v2/{path}", {"nemotron-secret": SECRET})[0]

    assert [status("health/ready"), status("models/nemotron")] == [200, 200]
    assert [status("models/nemotron/config"), status("models/nemotron/stats")] == [403, 403]


def test_no_process_shows_the_secret_and_no_log_holds_it(guarded: Running) -> None:
    shown = command_lines()

    assert len(shown) >= 5
    assert not [pid for pid, words in shown.items() if any(SECRET in word for word in words)]
    assert not [line for line in guarded.log if SECRET in line]
    assert SECRET not in repr(guarded.options)


def test_the_model_processes_do_not_know_the_secret(guarded: Running) -> None:
    models = stubs(guarded.server.pid)

    assert len(models) == 3
    for stub in models:
        assert SECRET.encode() not in Path(f"/proc/{stub.pid}/environ").read_bytes()


def test_who_has_no_certificate_of_the_authority_is_not_let_in(
    connect: Callable[..., Client], certificates: Certificates
) -> None:
    with (
        connect(own=certificates.stranger) as client,
        pytest.raises(ServerUnavailable, match="does not take this client certificate"),
    ):
        client.chat(HELLO)


def test_a_client_without_tls_is_refused(guarded: Running) -> None:
    with (
        Client(guarded.options.grpc_url, timeout_s=20, secret=SECRET) as client,
        pytest.raises(ServerUnavailable, match="it wants TLS; give root_ca"),
    ):
        client.chat(HELLO)


def test_a_server_that_another_authority_signed_is_not_trusted(connect: Callable[..., Client], tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))

    with (
        connect(ca=tmp_path / "other.pem") as client,
        pytest.raises(ServerUnavailable, match="not signed by the authority that was given"),
    ):
        client.chat(HELLO)


def test_tls_without_a_client_authority_takes_every_client(bundle: Bundle, certificates: Certificates) -> None:
    tls = Tls(cert=certificates.cert, key=certificates.key)
    with running(bundle, tls=tls) as server, server.client(root_ca=certificates.ca) as client:
        assert client.chat(HELLO, thinking=False).content


def test_files_that_are_no_certificate_and_its_key_are_one_clear_line(
    certificates: Certificates, tmp_path: Path
) -> None:
    text = tmp_path / "text.pem"
    text.write_text("hello")
    good = Tls(cert=certificates.cert, key=certificates.key)

    for tls, complaint in [
        (replace(good, cert=tmp_path / "none.pem"), r"cannot read \S+none.pem: No such file or directory"),
        (replace(good, cert=text), r"text.pem and \S+key.pem are no certificate and its key"),
        (replace(good, key=certificates.client), r"are no certificate and its key \(KEY_VALUES_MISMATCH\)"),
        (replace(good, client_ca=text), r"text.pem holds no certificate"),
    ]:
        with pytest.raises(ServerError, match=complaint):
            tls.check()
    good.check()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"root_ca": "/nowhere.pem"}, "cannot read /nowhere.pem: No such file or directory"),
        ({"root_ca": __file__}, "is not a PEM file"),
        ({"client_cert": "CLIENT", "client_key": "CLIENT"}, "give root_ca"),
        ({"root_ca": "CLIENT", "client_cert": "CLIENT"}, "give client_cert and client_key"),
        ({"secret": "two\nlines"}, "visible ASCII"),
    ],
)
def test_a_client_says_what_it_cannot_connect_with(
    certificates: Certificates, settings: dict[str, str], complaint: str
) -> None:
    options = {name: str(certificates.client) if value == "CLIENT" else value for name, value in settings.items()}

    with pytest.raises(ClientError, match=complaint):
        Client("127.0.0.1:1", **options)  # type: ignore[arg-type]


def test_nobody_registers_shared_memory(served: ServeOptions) -> None:
    with InferenceServerClient(served.grpc_url) as plain, pytest.raises(InferenceServerException, match="restricted"):
        plain.register_system_shared_memory("region", "/region", 64)
    register = "/v2/systemsharedmemory/region/region/register"
    assert ask_http(served, "POST", register, body={"key": "/region", "offset": 0, "byte_size": 64})[0] == 403


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("repository/models/nemotron/load", lambda plain: plain.load_model("nemotron")),
        ("repository/models/nemotron/unload", lambda plain: plain.unload_model("nemotron")),
        ("logging", lambda plain: plain.update_log_settings({"log_verbose_level": 1})),
    ],
)
def test_nobody_controls_models_or_logs(
    served: ServeOptions, path: str, call: Callable[[InferenceServerClient], object]
) -> None:
    with InferenceServerClient(served.grpc_url) as plain, pytest.raises(InferenceServerException, match="restricted"):
        call(plain)
    assert ask_http(served, "POST", f"/v2/{path}")[0] == 403


def test_what_closes_them_cannot_be_seen(served: ServeOptions) -> None:
    (server,) = [words for words in command_lines().values() if f"--grpc-port={served.grpc_port}" in words]

    assert [word for word in server if "restricted" in word] == [
        "--grpc-restricted-protocol=shared-memory,trace,logging:nemotron-closed=(hidden)",
        "--http-restricted-api=shared-memory,trace,logging:nemotron-closed=(hidden)",
        "--grpc-restricted-protocol=model-repository:nemotron-control=(hidden)",
        "--http-restricted-api=model-repository:nemotron-control=(hidden)",
    ]


def command_lines() -> dict[int, list[str]]:
    """The command lines of this process and its children, as every user of the machine sees them."""
    commands = {}
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            commands[process.pid] = process.cmdline()
    return commands


def ask_http(
    options: ServeOptions, method: str, path: str, headers: dict[str, str] | None = None, body: object = None
) -> tuple[int, str]:
    """Status and text of one HTTP call."""
    connection = http.client.HTTPConnection("127.0.0.1", options.http_port, timeout=20)
    try:
        connection.request(method, path, body=json.dumps(body or {}), headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()
