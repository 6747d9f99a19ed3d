"""`nemotron gateway` as a user runs it, in front of the real demo server."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateways import CHAT, Gateway
from nemotron_client import Client
from nemotron_triton.server import ServeOptions
from patience import wait_until
from ports import free_ports
from scripted_server import HI
from served import NEMOTRON, nemotron

TIP = [
    {"role": "system", "content": "detailed thinking on"},
    {"role": "user", "content": "My bill is $100. What will be the amount for 18% tip?"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "calculate_tip",
            "parameters": {
                "type": "object",
                "properties": {"bill_total": {"type": "integer"}, "tip_percentage": {"type": "integer"}},
                "required": ["bill_total", "tip_percentage"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "convert_currency",
            "parameters": {
                "type": "object",
                "properties": {
                    "amount": {"type": "integer"},
                    "from_currency": {"type": "string"},
                    "to_currency": {"type": "string"},
                },
            },
        },
    },
]
LONG = {"messages": HI, "stream": True, "ignore_eos": True, "max_tokens": 1500}


@dataclass(frozen=True)
class Commanded(Gateway):
    """`nemotron gateway` in a process of its own, and its lines on stderr."""

    process: subprocess.Popen[str] | None = None

    def end(self) -> tuple[int, str]:
        """Its exit status and what it said, when it has ended."""
        assert self.process
        _, log = self.process.communicate(timeout=60)
        return self.process.returncode, log


@contextlib.contextmanager
def commanded(served: ServeOptions, *flags: str) -> Iterator[Commanded]:
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [*NEMOTRON, "gateway", "--url", served.grpc_url, "--port", str(port), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
        assert f"http://127.0.0.1:{port}/v1" in process.stdout.readline()
        yield Commanded(port, process=process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def offered(served: ServeOptions) -> Iterator[Commanded]:
    with commanded(served) as running:
        wait_until(lambda: running.ask("GET", "/health/ready").status == 200)
        yield running


def test_the_makers_question_is_answered(offered: Commanded) -> None:
    got = offered.ask("POST", CHAT, {"model": "Llama-Nemotron-Nano-4B-v1.1", "messages": TIP, "tools": TOOLS})

    (choice,) = got.json["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["message"]["reasoning"]
    assert (choice["finish_reason"], call["function"]["name"]) == ("tool_calls", "calculate_tip")
    assert json.loads(call["function"]["arguments"]) == {"bill_total": 100, "tip_percentage": 18}


def test_what_was_answered_can_be_sent_back(offered: Commanded) -> None:
    first = offered.chat(TIP, tools=TOOLS).json["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "18"}

    second = offered.chat([*TIP, first, result], tools=TOOLS)

    assert second.status == 200, second.body
    assert second.json["choices"][0]["message"]["content"]


def test_usage_comes_when_it_is_asked_for_and_only_then(offered: Commanded) -> None:
    plain = offered.chat(TIP, stream=True).chunks
    counted = offered.chat(TIP, stream=True, stream_options={"include_usage": True}).chunks

    assert not any("usage" in chunk for chunk in plain)
    assert all(chunk["choices"] for chunk in plain)
    assert (counted[-1]["choices"], counted[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0) == (
        [],
        True,
    )
    assert {chunk["usage"] for chunk in counted[:-1]} == {None}


def test_several_answers_have_places_of_their_own(offered: Commanded) -> None:
    whole = offered.chat(n=2, seed=1, temperature=1.0).json
    streamed = offered.chat(n=2, seed=1, temperature=1.0, stream=True).chunks

    texts = {choice["index"]: choice["message"]["content"] for choice in whole["choices"]}
    joined = {0: "", 1: ""}
    for chunk in streamed:
        for choice in chunk["choices"]:
            joined[choice["index"]] += choice["delta"].get("content", "")
    assert joined == texts


def test_log_probabilities_have_openais_shape(offered: Commanded) -> None:
    fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "max_tokens": 8}

    (whole,) = offered.chat(**fields).json["choices"]
    streamed = [choice for chunk in offered.chat(stream=True, **fields).chunks for choice in chunk["choices"]]

    tokens = whole["logprobs"]["content"]
    pieces = [token for choice in streamed if choice["logprobs"] for token in choice["logprobs"]["content"]]
    assert [token["token"] for token in pieces] == [token["token"] for token in tokens]
    assert all(len(token["top_logprobs"]) == 2 and token["logprob"] <= 0 for token in tokens)


def test_a_schema_is_followed_behind_the_thinking(offered: Commanded) -> None:
    properties = {"size": {"enum": ["s", "m"]}}
    schema = {"type": "object", "properties": properties, "required": ["size"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "size", "schema": schema, "strict": True}}

    for system in ("detailed thinking on", "detailed thinking off"):
        messages = [{"role": "system", "content": system}, TIP[1]]
        whole = offered.chat(messages, response_format=wanted).json["choices"][0]["message"]
        deltas = [
            choice["delta"]
            for chunk in offered.chat(messages, response_format=wanted, stream=True).chunks
            for choice in chunk["choices"]
        ]

        assert json.loads(whole["content"])["size"] in ("s", "m")
        assert json.loads("".join(delta.get("content", "") for delta in deltas))["size"] in ("s", "m")
        assert bool(whole.get("reasoning")) == (system == "detailed thinking on")


def test_no_effort_is_no_thinking(offered: Commanded) -> None:
    usages = [
        offered.chat([TIP[1]], reasoning_effort=effort).json["usage"]["completion_tokens_details"]["reasoning_tokens"]
        for effort in ("none", "low")
    ]

    assert usages[0] == 0 < usages[1]


def test_max_tokens_is_an_upper_bound(offered: Commanded) -> None:
    got = offered.chat(max_tokens=32_768)

    assert (got.status, got.json["choices"][0]["finish_reason"]) == (200, "stop")


def test_a_prompt_without_room_says_how_long_it_is(offered: Commanded) -> None:
    got = offered.chat([{"role": "user", "content": "word " * 5000}])

    assert (got.status, got.error["code"], got.error["param"]) == (400, "context_length_exceeded", "messages")


def test_a_developer_is_read_as_the_system(offered: Commanded) -> None:
    told = [
        offered.ask("POST", "/v1/chat/completions/render", {"messages": [{"role": role, "content": "Be brief."}, *HI]})
        for role in ("developer", "system")
    ]

    assert told[0].json["prompt"] == told[1].json["prompt"]
    assert "Be brief." in told[0].json["prompt"]


def test_tokens_are_those_that_the_server_counts(offered: Commanded, client: Client) -> None:
    prompt = client.render(HI)

    counted = offered.ask("POST", "/tokenize", {"messages": HI}).json
    finished = offered.ask("POST", "/tokenize", {"prompt": prompt.text}).json

    assert (counted["tokens"], counted["count"]) == (list(prompt.token_ids), prompt.num_tokens)
    assert finished["tokens"] == counted["tokens"]


def test_finished_prompts_are_gone_on_with(offered: Commanded, client: Client) -> None:
    prompts = [
        client.render([{"role": "user", "content": f"What is the capital of {country}?"}]).text
        for country in ("France", "Italy")
    ]
    fields = {"prompt": prompts, "temperature": 0, "max_tokens": 20, "n": 1}

    whole = offered.ask("POST", "/v1/completions", fields)
    streamed = offered.ask("POST", "/v1/completions", fields | {"stream": True}).chunks

    texts = [choice["text"] for choice in whole.json["choices"]]
    joined = ["", ""]
    for chunk in streamed:
        for choice in chunk["choices"]:
            joined[choice["index"]] += choice["text"]
    assert ("Paris" in texts[0], "Rome" in texts[1]) == (True, True)
    assert joined == texts


def test_running_answers_end_and_new_ones_are_refused_after_sigterm(served: ServeOptions) -> None:
    with commanded(served) as running, stream(running) as response:
        first = response.readline()
        assert running.process
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: running.ask("GET", "/health/ready").status == 503)
        refused = running.chat()
        rest = response.read()
        status, log = running.end()

    assert first.startswith(b"data: ")
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert rest.endswith(b"data: [DONE]\n\n")
    assert status == 0
    assert "draining" in log
    assert "stopped" in log


@pytest.mark.parametrize("how", ["second signal", "time"])
def test_an_answer_that_may_not_end_says_so(served: ServeOptions, how: str) -> None:
    with commanded(served, "--drain", "30" if how == "second signal" else "0") as running, stream(running) as response:
        response.readline()
        assert running.process
        running.process.send_signal(signal.SIGTERM)
        if how == "second signal":
            wait_until(lambda: running.ask("GET", "/health/ready").status == 503)
            running.process.send_signal(signal.SIGTERM)
        rest = response.read()
        status, _ = running.end()

    assert (status, b"[DONE]" in rest, b'"error"' in rest) == (0, False, True)


def test_a_killed_gateway_leaves_the_server_as_it_was(served: ServeOptions, client: Client) -> None:
    with commanded(served) as running, stream(running) as response:
        response.readline()
        assert running.process
        running.process.kill()
        with pytest.raises(http.client.IncompleteRead):
            response.read()

    assert client.chat(HI).content


def test_mistakes_are_one_line(served: ServeOptions, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    keys = tmp_path / "keys"
    keys.write_text("nonsense\nnonsense\n")
    keys.chmod(0o600)
    mistakes: dict[str, tuple[Any, ...]] = {
        "gRPC's own port": ("--port", served.grpc_port),
        "everybody": ("--port", port, "--host", "0.0.0.0"),  # noqa: S104 - to be refused
        "no such host": ("--port", port, "--host", "nobody.invalid", "--no-auth"),
        "no keys": ("--port", port, "--api-key-file", keys),
        "half of TLS": ("--port", port, "--tls-cert", keys),
        "no certificate": ("--port", port, "--tls-cert", keys, "--tls-key", keys),
        "a page without a scheme": ("--port", port, "--cors-origin", "example.com"),
        "a url": ("--port", port, "--url", "http://127.0.0.1:8001"),
    }

    ended = {name: nemotron("gateway", *flags) for name, flags in mistakes.items()}

    assert {name: result.returncode for name, result in ended.items()} == dict.fromkeys(mistakes, 1)
    assert all(result.stderr.count("\n") == 1 for result in ended.values()), ended
    assert "choose another port" in ended["gRPC's own port"].stderr


@contextlib.contextmanager
def stream(running: Gateway) -> Iterator[http.client.HTTPResponse]:
    """A long answer whose first event has come."""
    with contextlib.closing(running.connect(60)) as connection:
        connection.request("POST", CHAT, json.dumps(LONG), {"content-type": "application/json"})
        yield connection.getresponse()
