"""Callers with names: what a server with a file of secrets lets them do, and whose turn it is when all want a slot."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput

from conftest import ROOT
from exposition import fetch, metric, samples
from nemotron_client import AccessDenied, Client, Event, Finish, ServerUnavailable, Stream
from nemotron_triton.bundle import Bundle
from nemotron_triton.serving.authentication import FORWARDED
from patience import wait_until
from plain_tritonserver import plain_tritonserver
from served import Served, served_by_command

HELLO = [{"role": "user", "content": "What is the capital of France?"}]
SECRETS = {"alice": "alice-horse-battery", "bob": "bob-horse-battery", "gateway front": "front-horse-battery"}
MOST = 6
ENDLESS: dict[str, Any] = {"end_id": -1, "max_tokens": 1900}
SHORT: dict[str, Any] = {"end_id": -1, "max_tokens": 3}


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("secrets") / "callers"
    write(file, **SECRETS)
    return file


@pytest.fixture(scope="module")
def server(random_bundle: Bundle, secret_file: Path) -> Iterator[Served]:
    """A server of two slots that knows three callers, each of whom may have six requests there."""
    flags = (f"--secret-file={secret_file}", f"--max-requests-per-caller={MOST}")
    with served_by_command(random_bundle.path, *flags) as served:
        yield served


def write(file: Path, **secrets: str) -> None:
    file.touch(mode=0o600)
    file.write_text("".join(f"{name}: {secret}\n" for name, secret in secrets.items()))


def client_of(server: Served, name: str) -> Client:
    return Client(server.options.grpc_url, secret=SECRETS[name], timeout_s=60, max_retries=0)


def logged(server: Served, caller: str) -> list[dict[str, Any]]:
    """The requests of *caller* in the log."""
    lines = [json.loads(line) for line in server.log if line.startswith("{")]
    return [line for line in lines if line.get("caller") == caller]


def post(server: Served, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, str]:
    """Status and text of an HTTP call."""
    url = f"{server.options.http_url}/v2/models/{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - it is http
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ask_with(server: Served, headers: dict[str, str]) -> str:
    """The error that a plain gRPC client with these *headers* gets, empty where it is answered."""
    text = InferInput("text_input", [1, 1], "BYTES")
    text.set_data_from_numpy(np.array([[b"Hello"]], dtype=np.object_))
    tokens = InferInput("max_tokens", [1, 1], "INT32")
    tokens.set_data_from_numpy(np.array([[1]], dtype=np.int32))
    answers: SimpleQueue[Any] = SimpleQueue()
    with InferenceServerClient(server.options.grpc_url) as plain:
        plain.start_stream(lambda result, error: answers.put(error), headers=headers)
        plain.async_stream_infer("nemotron", [text, tokens])
        return str(answers.get(timeout=30) or "")


@contextmanager
def full(client: Client) -> Iterator[Stream[Event]]:
    """While two answers of *client* hold both slots; the one to close frees a slot, in which others begin in turn."""
    with client.stream(HELLO, **ENDLESS) as first, client.stream(HELLO, **ENDLESS) as second:
        next(first)
        next(second)
        yield first


def wait_for_waiting(server: Served, count: int) -> None:
    """Wait until *count* requests wait for a slot."""
    wait_until(lambda: metric(server.options, "waiting_requests") == count)


def begun(server: Served, seen: int, count: int) -> list[str]:
    """Who was answered with three tokens since *seen* lines of the log, in order, once there are *count*."""

    def callers() -> list[str]:
        lines = [json.loads(line) for line in server.log[seen:] if line.startswith("{")]
        return [line["caller"] for line in lines if line.get("output_tokens") == SHORT["max_tokens"]]

    wait_until(lambda: len(callers()) >= count)
    return callers()


def test_log_and_metrics_say_who_called(server: Served) -> None:
    for name, count in (("alice", 1), ("bob", 2)):
        with client_of(server, name) as client:
            for _ in range(count):
                client.chat(HELLO, max_tokens=5)

    wait_until(lambda: len(logged(server, "bob")) == 2 and len(logged(server, "alice")) == 1)
    expected = {
        'nemotron_requests_total{caller="alice",outcome="ok"}': 1,
        'nemotron_requests_total{caller="bob",outcome="ok"}': 2,
        'nemotron_prompt_tokens_total{caller="bob"}': 2 * logged(server, "alice")[0]["prompt_tokens"],
    }
    # Counters are written a moment after the log.
    wait_until(lambda: expected.items() <= samples(fetch(server.options)).items())


def test_who_is_not_known_is_denied_whatever_it_asks_for(server: Served) -> None:
    denied = 'requests_total{outcome="denied"}'
    before = metric(server.options, denied)

    for secret in ("", "wrong-horse-battery", SECRETS["bob"][:-1]):
        with Client(server.options.grpc_url, secret=secret, timeout_s=20) as client:
            with pytest.raises(AccessDenied, match="the secret is missing or wrong") as raised:
                client.chat(HELLO)
            with pytest.raises(AccessDenied, match="the secret is missing or wrong"):
                client.count_tokens(HELLO)
            # What it needs to know of the server, it may know.
            assert client.is_ready()
            assert [model.name for model in client.models()] == ["nemotron", "preprocessing", "postprocessing"]
        assert (raised.value.status, raised.value.retries) == ("UNAUTHENTICATED", 0)

    wait_until(lambda: metric(server.options, denied) == before + 3)


def test_http_takes_the_secret_in_a_header_however_it_is_written(server: Served) -> None:
    tensor = {"name": "messages", "datatype": "BYTES", "shape": [1, 1], "data": [json.dumps(HELLO)]}

    for headers in ({"nemotron-secret": SECRETS["bob"]}, {"Nemotron-Secret": SECRETS["bob"]}):
        assert post(server, "preprocessing/infer", {"inputs": [tensor]}, headers)[0] == 200
    for headers in ({}, {"nemotron-secret": "wrong-horse-battery"}, {"x-nemotron-secret": SECRETS["bob"]}):
        status, text = post(server, "preprocessing/infer", {"inputs": [tensor]}, headers)
        assert status == 400
        assert "no secret, or a wrong one" in text


def test_http_generate_takes_it_in_a_parameter(server: Served) -> None:
    body: dict[str, Any] = {"text_input": "Hello", "max_tokens": 1}

    for path in ("nemotron/generate", "nemotron/generate_stream"):
        assert post(server, path, body | {"parameters": {"nemotron-secret": SECRETS["bob"]}}, {})[0] == 200
        status, text = post(server, path, body, {})
        assert status == 400
        assert "(for HTTP generate in the parameter of that name)" in text


def test_a_gateway_says_for_whom_it_asks_and_nobody_else_does(server: Served) -> None:
    for name in ("gateway front", "bob"):
        headers = {"triton-grpc-protocol-nemotron-secret": SECRETS[name], "nemotron-caller": "carol"}
        assert ask_with(server, headers) == ""

    wait_until(lambda: len(logged(server, "front/carol")) == 1)
    assert 'nemotron_requests_total{caller="front/carol",outcome="ok"}' in samples(fetch(server.options))
    assert not logged(server, "carol")
    assert "nemotron-caller must have 1 to 64 visible ASCII characters" in ask_with(
        server, {"nemotron-secret": SECRETS["gateway front"], "nemotron-caller": "two words"}
    )


def test_no_process_shows_a_secret_and_no_log_holds_one(server: Served) -> None:
    command = psutil.Process(server.process.pid)
    processes = [command, *command.children(recursive=True)]

    assert len(processes) >= 5
    for process in processes:
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes() + Path(f"/proc/{process.pid}/environ").read_bytes()
        assert not [secret for secret in SECRETS.values() if secret.encode() in shown]
    assert not [line for line in server.log for secret in SECRETS.values() if secret in line]


def test_a_caller_has_no_more_requests_than_it_may_and_takes_turns_with_others(server: Served) -> None:
    alice, bob, seen = client_of(server, "alice"), client_of(server, "bob"), len(server.log)
    with alice, bob, ThreadPoolExecutor(MOST) as threads, full(alice) as slot:
        answers = [threads.submit(alice.chat, HELLO, **SHORT) for _ in range(MOST - 2)]
        wait_for_waiting(server, MOST - 2)
        with pytest.raises(ServerUnavailable, match="alice may have 6 requests here, running and waiting") as raised:
            alice.chat(HELLO)
        answers.append(threads.submit(bob.chat, HELLO, **SHORT))
        wait_for_waiting(server, MOST - 1)
        slot.close()
        assert all(answer.result() for answer in answers)

    assert raised.value.status == "RESOURCE_EXHAUSTED"
    assert begun(server, seen, MOST - 1) == ["alice", "bob", "alice", "alice", "alice"]


def test_what_can_wait_begins_when_nothing_else_waits(server: Served) -> None:
    alice, bob, seen = client_of(server, "alice"), client_of(server, "bob"), len(server.log)
    with alice, bob, ThreadPoolExecutor(4) as threads, full(bob) as slot:
        answers = [threads.submit(bob.chat, HELLO, **SHORT, priority=1) for _ in range(2)]
        wait_for_waiting(server, 2)
        answers += [threads.submit(alice.chat, HELLO, **SHORT, priority=priority) for priority in (0, None)]
        wait_for_waiting(server, 4)
        slot.close()
        assert all(answer.result() for answer in answers)

    assert begun(server, seen, 4) == ["alice", "alice", "bob", "bob"]


def test_who_is_struck_from_the_file_is_denied_and_its_answer_goes_on(server: Served, secret_file: Path) -> None:
    """The last one: afterwards nobody called alice is known."""
    alice, bob = client_of(server, "alice"), client_of(server, "bob")
    with alice, bob, alice.stream(HELLO, **ENDLESS) as running:
        next(running)
        secret_file.write_text("what is this")
        assert "line 1 of" in hang_up(server)
        assert alice.chat(HELLO, max_tokens=1)
        write(secret_file, bob=SECRETS["bob"])
        assert hang_up(server) == "secrets read: bob"

        with pytest.raises(AccessDenied):
            alice.chat(HELLO, max_tokens=1)
        assert bob.chat(HELLO, max_tokens=1)
        *_, finish = running

    assert isinstance(finish, Finish)
    assert finish.usage.output_tokens == ENDLESS["max_tokens"]


def hang_up(server: Served) -> str:
    """Send SIGHUP, and return the line about the secrets."""
    seen = len(server.log)
    server.process.send_signal(signal.SIGHUP)
    return server.wait_for("secrets", seen)


def test_a_plain_tritonserver_asks_for_the_secrets_in_the_file_that_the_environment_names(
    bundle: Bundle, tmp_path: Path
) -> None:
    file = tmp_path / "callers"
    write(file, **SECRETS)
    flags = [f"--{protocol}-header-forward-pattern={FORWARDED}" for protocol in ("grpc", "http")]
    flags += ["--model-control-mode=explicit", "--load-model=nemotron"]
    variables = {"NEMOTRON_BUNDLE": str(bundle.path), "NEMOTRON_SECRET_FILE": str(file)}
    with plain_tritonserver(ROOT / "model_repo", tmp_path, *flags, cwd=tmp_path, variables=variables) as server:
        server.wait_ready()
        with Client(server.url, secret=SECRETS["bob"]) as bob, Client(server.url, secret="") as stranger:
            assert bob.chat(HELLO, max_tokens=1)
            with pytest.raises(AccessDenied):
                stranger.chat(HELLO)
            write(file, alice=SECRETS["alice"])
            with pytest.raises(AccessDenied):
                bob.chat(HELLO)


def test_a_file_that_cannot_be_used_opens_no_plain_tritonserver(bundle: Bundle, tmp_path: Path) -> None:
    variables = {"NEMOTRON_BUNDLE": str(bundle.path), "NEMOTRON_SECRET_FILE": str(tmp_path / "none")}
    one = ("--model-control-mode=explicit", "--load-model=nemotron")

    with plain_tritonserver(ROOT / "model_repo", tmp_path, *one, cwd=tmp_path, variables=variables) as server:
        assert server.process.wait(timeout=60) == 1

    assert f"cannot read the secret in {tmp_path / 'none'}: No such file" in server.log.read_text()
