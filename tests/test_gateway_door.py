"""Who is let in: keys, web pages, host names, and what may be asked without any of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from starlette.routing import Router

from gateways import HI, Gateway, described, gateway
from nemotron_client import wire
from nemotron_gateway.door import OPEN_PATHS
from nemotron_gateway.errors import SettingError
from nemotron_gateway.keys import Keys
from nemotron_gateway.settings import Settings
from scripted_server import answer, scripted_server

ALICE, BOB = "alice-" + "a" * 20, "bob-" + "b" * 20
PAGE = "https://chat.example"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with scripted_server(described(lambda _request, _context: answer("hello"))) as server:
        yield server.url


@pytest.fixture(scope="module")
def locked(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that asks for keys, and lets one web page in."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"alice: {ALICE}\nbob: {BOB}\n")
    file.chmod(0o600)
    with gateway(url, keys=file, cors_origins=(PAGE,)) as running:
        yield running


@pytest.fixture(scope="module")
def unlocked(url: str) -> Iterator[Gateway]:
    with gateway(url) as running:
        yield running


@pytest.mark.parametrize("headers", [{"authorization": f"Bearer {ALICE}"}, {"x-api-key": BOB}])
def test_a_key_opens(locked: Gateway, headers: dict[str, str]) -> None:
    got = locked.chat(headers=headers)

    assert got.status == 200
    assert got.json["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {ALICE}"}, {"authorization": ALICE}],
)
def test_without_a_key_every_path_but_health_is_closed(locked: Gateway, headers: dict[str, str]) -> None:
    assert locked.door
    routes = locked.door.app
    assert isinstance(routes, Router)
    paths = [getattr(route, "path", "").replace("{name:path}", "any") for route in routes.routes]

    statuses = {
        path: locked.ask(method, path, {} if method == "POST" else None, headers).status
        for path in [*paths, "/", "/docs", "/v1", "/v1/nothing"]
        for method in ("GET", "POST")
    }

    assert {path for path, status in statuses.items() if status != 401} == OPEN_PATHS


def test_a_refusal_says_what_to_send_and_not_what_was_sent(locked: Gateway) -> None:
    got = locked.chat(headers={"authorization": "Bearer my-secret-guess"})

    assert got.error["code"] == "invalid_api_key"
    assert got.error["type"] == "authentication_error"
    assert got.headers["www-authenticate"] == "Bearer"
    assert "my-secret-guess" not in got.body.decode()


def test_a_web_page_may_ask_before_it_sends_a_key(locked: Gateway) -> None:
    headers = {"origin": PAGE, "access-control-request-method": "POST"}

    got = locked.ask("OPTIONS", "/v1/chat/completions", headers=headers)

    assert got.status == 204
    assert got.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in got.headers["access-control-allow-headers"]
    assert "POST" in got.headers["access-control-allow-methods"]


def test_a_refusal_can_be_read_by_the_page(locked: Gateway) -> None:
    got = locked.chat(headers={"origin": PAGE})

    assert (got.status, got.headers["access-control-allow-origin"]) == (401, PAGE)


def test_other_web_pages_learn_nothing(locked: Gateway, unlocked: Gateway) -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}

    answers = [running.ask("OPTIONS", "/v1/models", headers=headers) for running in (locked, unlocked)]

    assert not any("access-control-allow-origin" in got.headers for got in answers)


def test_what_a_web_page_can_send_unasked_is_refused(unlocked: Gateway) -> None:
    body = json.dumps({"messages": HI}).encode()

    got = unlocked.ask("POST", "/v1/chat/completions", body, {"content-type": "text/plain"})

    assert got.status == 415


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""])
def test_another_name_for_this_machine_is_refused(unlocked: Gateway, host: str) -> None:
    got = unlocked.ask("GET", "/v1/models", headers={"host": host})

    assert (got.status, got.error["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8080", "[::1]"])
def test_the_names_of_loopback_are_known(unlocked: Gateway, host: str) -> None:
    assert unlocked.ask("GET", "/v1/models", headers={"host": host}).status == 200


def test_a_name_can_be_allowed(url: str) -> None:
    with gateway(url, allowed_hosts=("llm.internal",)) as running:
        assert running.ask("GET", "/health/live", headers={"host": "llm.internal:80"}).status == 200
        assert running.ask("GET", "/health/live", headers={"host": "other.internal"}).status == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com"])  # noqa: S104 - to be refused
def test_everybody_is_let_in_on_purpose_only(host: str) -> None:
    with pytest.raises(SettingError, match="--api-key-file, or --no-auth"):
        Settings(host=host)

    assert Settings(host=host, has_keys=True).hosts is None
    assert Settings(host=host, no_auth=True).hosts is None


@pytest.mark.parametrize("text", ["", "alice\nbob", "alice: short", f"alice: {ALICE}\nalice: {BOB}"])
def test_a_file_of_keys_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    file.chmod(0o600)

    with pytest.raises(SettingError, match="keys"):
        Keys(file)


def test_keys_are_read_again_and_stay_where_the_file_is_broken(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"alice: {ALICE}\n")
    file.chmod(0o600)
    keys = Keys(file)

    file.write_text(f"bob: {BOB}\n")
    keys.read_again()
    assert [keys.name_of(f"Bearer {key}", "") for key in (ALICE, BOB)] == [None, "bob"]

    file.write_text("nonsense")
    with pytest.raises(SettingError):
        keys.read_again()
    assert keys.name_of(f"Bearer {BOB}", "") == "bob"


def test_a_request_keeps_its_id_to_the_last_log(url: str) -> None:
    with gateway(url) as running:
        named = running.chat(headers={"x-request-id": "order-66"})
        unnamed = running.chat(headers={"x-request-id": "with blanks"})

    assert (named.headers["x-request-id"], named.json["id"]) == ("order-66", "chatcmpl-order-66")
    assert "blanks" not in unnamed.headers["x-request-id"]


def test_a_request_stays_in_its_trace() -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    seen: list[dict[str, str]] = []

    def script(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        seen.append(dict(context.invocation_metadata()))
        return answer("hello")

    with scripted_server(described(script)) as server, gateway(server.url) as running:
        running.chat(headers={"traceparent": trace})
        running.chat(headers={"traceparent": "00-nonsense"})

    assert [metadata.get("traceparent") for metadata in seen] == [trace, None]


def test_the_server_is_told_for_whom_the_gateway_asks(tmp_path: Path) -> None:
    seen: list[Any] = []

    def script(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        seen.append(dict(context.invocation_metadata()).get(wire.CALLER_HEADER))
        return answer("hello")

    file = tmp_path / "keys"
    file.write_text(f"alice: {ALICE}\n")
    file.chmod(0o600)
    with scripted_server(described(script)) as server, gateway(server.url, keys=file) as running:
        running.chat(headers={"x-api-key": ALICE})

    assert seen == ["alice"]


def test_requests_are_counted_by_route_and_status(unlocked: Gateway) -> None:
    unlocked.chat()
    unlocked.ask("GET", "/nothing/here")

    text = unlocked.ask("GET", "/metrics").body.decode()

    assert 'nemotron_gateway_requests_total{route="/v1/chat/completions",status="200"}' in text
    assert 'nemotron_gateway_requests_total{route="other",status="404"}' in text
    assert "nemotron_gateway_active_requests 1.0" in text
