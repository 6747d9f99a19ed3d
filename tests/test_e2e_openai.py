"""OpenAI's API of `nemotron serve --openai`, on a real server: who calls, what dies with what, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from deaths import LIMIT_S, Family
from gateways import CHAT, HI, Gateway
from nemotron_triton.bundle import Bundle
from patience import wait_until
from ports import free_ports
from probes import readiness
from running import serve_options
from served import NEMOTRON, Served, port_flags, served_by_command

KEYS = {"alice": "alice-horse-battery", "bob": "bob-horse-battery-staple", "carol": "carol-horse-battery"}
MODEL = "Llama-Nemotron-Nano-4B-v1.1"
LONG = 1900


@contextmanager
def offered(bundle: Bundle, *flags: object, folder: Path | None = None) -> Iterator[tuple[Served, Gateway]]:
    """A server with the gateway beside it."""
    (port,) = free_ports(1)
    with served_by_command(
        bundle.path, "--no-text-models", "--openai", f"--openai-port={port}", *map(str, flags), folder=folder
    ) as served:
        yield served, Gateway(port)


def gateway_of(served: Served) -> psutil.Process:
    """The process of its gateway."""
    (child,) = [child for child in psutil.Process(served.process.pid).children() if "gateway" in child.cmdline()]
    return child


def write(file: Path, *names: str) -> Path:
    file.touch(mode=0o600)
    file.write_text("".join(f"{name}: {KEYS[name]}\n" for name in names))
    return file


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[name]}"}


@contextmanager
def long_stream(gateway: Gateway, key: str | None = None) -> Iterator[http.client.HTTPResponse]:
    """The response with a long answer, of which something has come; it belongs to the owner of *key*."""
    body = json.dumps({"messages": HI, "stream": True, "max_tokens": LONG, "ignore_eos": True, "min_tokens": LONG})
    with contextlib.closing(gateway.connect(90)) as connection:
        connection.request("POST", CHAT, body, {"content-type": "application/json"} | (bearer(key) if key else {}))
        response = connection.getresponse()
        assert response.status == 200
        response.readline()
        yield response


def test_it_answers_where_it_says(bundle: Bundle) -> None:
    with offered(bundle) as (served, gateway):
        lines = [served.line() for _ in range(5)]
        models = gateway.ask("GET", "/v1/models")
        reply = gateway.chat(model=MODEL)
        streamed = gateway.chat(stream=True, model=MODEL)

    assert lines[3:] == [
        f"  OpenAI   http://127.0.0.1:{gateway.port}/v1: plain, no key needed\n",
        "  model control off, shared memory off, tracing calls off\n",
    ]
    assert models.json["data"][0]["id"] == "llama-nemotron-nano-4b-v1.1"
    text = reply.json["choices"][0]["message"]["content"]
    assert "Paris" in text
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in streamed.chunks) == text


def test_the_names_of_keys_are_in_the_log_and_files_of_keys_and_secrets_are_read_again(
    bundle: Bundle, tmp_path: Path
) -> None:
    keys, secrets = write(tmp_path / "keys", "alice", "bob"), write(tmp_path / "secrets", "bob")
    with offered(bundle, "--api-key-file", keys, "--secret-file", secrets, "--max-requests-per-caller=9") as (
        served,
        gateway,
    ):
        exposed = [served.line() for _ in range(4)]
        before = [gateway.chat(model=MODEL, headers=headers).status for headers in (bearer("alice"), bearer("bob"), {})]
        write(keys, "carol")
        write(secrets, "alice", "carol")
        served.process.send_signal(signal.SIGHUP)
        renewed = served.wait_for("secrets read")
        served.wait_for("nemotron gateway: read: keys of carol")
        after = [gateway.chat(model=MODEL, headers=bearer(name)).status for name in ("alice", "carol")]
        keys.write_text("what is this")
        served.process.send_signal(signal.SIGHUP)
        refused = served.wait_for("not reloaded")
        kept = gateway.chat(model=MODEL, headers=bearer("carol")).status
        wait_until(lambda: len(callers(served)) == 4)
        shown = Path(f"/proc/{gateway_of(served).pid}/cmdline").read_bytes()

    assert exposed[0].endswith(": plain, secret required (1 caller)\n")
    assert exposed[3].endswith("/v1: plain, keys of alice, bob\n")
    assert (before, after, kept) == ([200, 200, 401], [401, 200], 200)
    assert renewed == "secrets read: alice, carol; read: API keys of carol"
    assert refused.startswith("not reloaded: the API keys stay as they were: line 1 of ")
    assert callers(served) == [f"openai-gateway/{name}" for name in ("alice", "bob", "carol", "carol")]
    assert b"battery" not in shown
    assert not [line for line in served.log if "battery" in line]


def callers(served: Served) -> list[Any]:
    """The callers of the requests in the log."""
    return [json.loads(line)["caller"] for line in served.log if line.startswith("{")]


def test_each_key_has_the_limit_of_a_caller(bundle: Bundle, tmp_path: Path) -> None:
    keys, secrets = write(tmp_path / "keys", "alice", "bob"), write(tmp_path / "secrets", "carol")
    flags = (f"--api-key-file={keys}", f"--secret-file={secrets}", "--max-requests-per-caller=1")
    with offered(bundle, *flags) as (_, gateway), long_stream(gateway, "alice"):
        alice = gateway.chat(model=MODEL, headers=bearer("alice"))
        bob = gateway.chat(model=MODEL, headers=bearer("bob"))

    assert (alice.status, bob.status) == (429, 200)
    assert "openai-gateway/alice may have 1 requests here" in alice.error["message"]


def test_the_death_of_the_gateway_breaks_its_streams_and_touches_nothing_else(bundle: Bundle) -> None:
    with offered(bundle) as (served, gateway), served.client() as client:
        family = Family.of(served.process.pid)
        victim = gateway_of(served)
        with long_stream(gateway) as response, client.stream(HI, end_id=-1, max_tokens=LONG) as direct:
            next(direct)
            victim.kill()
            with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
                response.read()
            said = served.wait_for("the gateway ")
            begin_s = time.monotonic()
            wait_until(lambda: is_answered(gateway))
            pause_s = time.monotonic() - begin_s
            *_, finish = direct
        survivors = family.survivors()

    assert said == "the gateway was killed by SIGKILL; starting another in 0.2 s"
    assert pause_s < LIMIT_S
    assert finish.usage.output_tokens == LONG  # type: ignore[union-attr]
    assert len(survivors) == len(family.others)


def is_answered(gateway: Gateway) -> bool:
    with contextlib.suppress(ConnectionError):
        return gateway.chat(model=MODEL, max_tokens=4).status == 200
    return False


def test_a_running_stream_ends_whole_and_the_server_leaves_after_the_gateway(bundle: Bundle, tmp_path: Path) -> None:
    with offered(bundle, "--drain-ms=80000", folder=tmp_path) as (served, gateway):
        family = Family.of(served.process.pid)
        with long_stream(gateway) as response, ThreadPoolExecutor(1) as threads:
            rest = threads.submit(response.read)
            served.process.send_signal(signal.SIGTERM)
            served.wait_for("nemotron gateway: draining")
            ready, refused = readiness(served.options), gateway.chat(model=MODEL).status
            was_running = not rest.done()
            events = rest.result(90).decode().strip().split("\n\n")
        status = served.process.wait(timeout=30)
        wait_until(lambda: not family.survivors())

    assert was_running
    assert (ready, refused) == ({False}, 503)
    assert events[-1] == "data: [DONE]"
    assert '"finish_reason":"length"' in events[-2]
    assert status == 0
    order = [line for line in served.log if line.startswith(("draining", "nemotron gateway", "stopped"))]
    assert [line.split(":")[0].strip() for line in order] == ["draining", *["nemotron gateway"] * 2, "stopped"]
    assert list(tmp_path.iterdir()) == []


def test_in_the_delay_it_answers_and_says_that_it_is_not_ready(bundle: Bundle) -> None:
    with offered(bundle, "--drain-delay-ms=3600000") as (served, gateway):
        before = gateway.ask("GET", "/health/ready").status
        served.process.send_signal(signal.SIGTERM)
        served.wait_for("not ready: ")
        wait_until(lambda: gateway.ask("GET", "/health/ready").status == 503)
        answered = gateway.chat(model=MODEL).status
        served.process.send_signal(signal.SIGTERM)
        status = served.process.wait(timeout=40)

    assert (before, answered, status) == (200, 200, 0)


def test_a_second_signal_hurries_both(bundle: Bundle) -> None:
    with offered(bundle, "--drain-ms=600000") as (served, gateway), long_stream(gateway) as response:
        served.process.send_signal(signal.SIGTERM)
        served.wait_for("nemotron gateway: draining")
        served.process.send_signal(signal.SIGTERM)
        status = served.process.wait(timeout=40)
        events = response.read().decode().strip().split("\n\n")

    assert status == 0
    assert "error" in json.loads(events[-1].removeprefix("data: "))


@pytest.mark.parametrize("loaded", [False, True], ids=["idle", "loaded"])
def test_no_gateway_outlives_a_server_that_is_killed(bundle: Bundle, tmp_path: Path, loaded: bool) -> None:
    with offered(bundle, folder=tmp_path) as (served, gateway):
        family = Family.of(served.process.pid)
        assert gateway_of(served) in family.others
        with long_stream(gateway) if loaded else contextlib.nullcontext():
            family.kill("serve")
            wait_until(lambda: not family.survivors(), LIMIT_S)

    assert list(tmp_path.iterdir()) == []


def test_the_gateway_ends_with_a_server_that_dies(bundle: Bundle) -> None:
    with offered(bundle) as (served, gateway):
        family = Family.of(served.process.pid)
        with long_stream(gateway) as response:
            family.kill("tritonserver")
            status = served.process.wait(timeout=60)
            events = response.read().decode().strip().split("\n\n")
        wait_until(lambda: not family.survivors())

    assert status == 1
    assert "error" in json.loads(events[-1].removeprefix("data: "))


def test_a_port_that_is_taken_while_the_server_loads_is_one_clear_line(bundle: Bundle) -> None:
    (port,) = free_ports(1)
    words = [*NEMOTRON, "serve", str(bundle.path), "--no-text-models", *port_flags(serve_options())]
    words += ["--openai", f"--openai-port={port}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        first = process.stderr.readline()
        with socket.create_server(("127.0.0.1", port)):
            printed, rest = process.communicate(timeout=60)

    reason = f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another port"
    assert "loading: nemotron" in first
    assert (process.returncode, printed) == (1, "")
    assert rest.splitlines()[-1] == f"Error: the gateway exited with status 1: {reason}"
    assert "the rest of tritonserver's log" not in rest
