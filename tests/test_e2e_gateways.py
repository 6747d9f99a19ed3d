"""What a gateway in front of a real tritonserver asks: what is served, an upper bound, in the name of its callers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from client_twins import Ask, both_clients
from nemotron_client import (
    AccessDenied,
    AsyncClient,
    Client,
    Description,
    Json,
    Reply,
    RequestRejected,
    ServerUnavailable,
)
from nemotron_triton.bundle import Bundle
from nemotron_triton.server import ServeOptions
from patience import wait_until
from served import Served, served_by_command
from test_e2e_callers import post, write

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
SECRETS = {"bob": "bob-horse-battery", "gateway front": "front-horse-battery"}
ENDLESS: dict[str, Any] = {"end_id": -1, "max_tokens": 1900}
CONTEXT = 2048


@pytest.fixture(scope="module")
def server(random_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of two slots without a queue, where each caller may have one request, and without text models."""
    file = tmp_path_factory.mktemp("secrets") / "callers"
    write(file, **SECRETS)
    limits = ("--max-requests-per-caller=1", "--max-queue-requests=0", "--no-text-models")
    with served_by_command(random_bundle.path, f"--secret-file={file}", *limits) as served:
        yield served


def client_of(server: Served, name: str) -> Client:
    return Client(server.options.grpc_url, secret=SECRETS.get(name, ""), timeout_s=60, max_retries=0)


def requests(server: Served) -> list[dict[str, Any]]:
    """The lines of requests in the log."""
    lines = [json.loads(line) for line in server.log if line.startswith("{")]
    return [line for line in lines if line.get("event") == "request"]


@contextmanager
def full(server: Served, gateway: Client) -> Iterator[None]:
    """While carol and dave have the two slots, which are free afterwards."""
    before = cancelled(server)
    with gateway.stream(CAPITAL, **ENDLESS, caller="carol") as first:
        next(first)
        with gateway.stream(CAPITAL, **ENDLESS, caller="dave") as second:
            next(second)
            yield
    wait_until(lambda: cancelled(server) == before + 2)


def cancelled(server: Served) -> int:
    return sum(line["outcome"] == "cancelled" for line in requests(server))


def callers(server: Served) -> dict[str, str]:
    """Whose requests were answered, by their ids."""
    return {line["request_id"]: line["caller"] for line in requests(server) if line["outcome"] == "ok"}


def test_both_clients_learn_what_is_served(served: ServeOptions, bundle: Bundle) -> None:
    async def described() -> Description:
        async with AsyncClient(served.grpc_url) as client:
            return await client.describe()

    with Client(served.grpc_url) as client:
        description = client.describe(timeout_s=30)

    assert asyncio.run(described()) == description
    assert description == Description(
        name="llama-nemotron-nano-4b-v1.1",
        names=(
            "nvidia/Llama-3.1-Nemotron-Nano-4B-v1.1",
            "Llama-Nemotron-Nano-4B-v1.1",
            "Llama-3_1-Nemotron-Nano-4B-v1.1",
        ),
        context_tokens=CONTEXT,
        kind="cpu",
        precision=bundle.manifest.precision,
        gpu="cpu",
        built_at=bundle.manifest.built_at,
    )


def test_a_full_server_says_what_it_serves_to_its_callers_alone_and_does_not_count_it(server: Served) -> None:
    with client_of(server, "gateway front") as gateway, client_of(server, "nobody") as stranger, full(server, gateway):
        with pytest.raises(ServerUnavailable, match="which is all there is room for"):
            gateway.chat(CAPITAL, caller="erin")
        wait_until(lambda: any(line["caller"] == "front/erin" for line in requests(server)))
        before = len(requests(server))
        description = gateway.describe()
        with pytest.raises(AccessDenied):
            stranger.describe()
        wait_until(lambda: len(requests(server)) > before)

    assert description.context_tokens == CONTEXT
    assert requests(server)[before]["outcome"] == "denied"


def test_http_says_what_is_served_and_it_is_asked_alone(server: Served) -> None:
    parameters = {"parameters": {"nemotron-secret": SECRETS["bob"]}}

    status, text = post(server, "nemotron/generate", {"describe": True} | parameters, {})
    with_more = post(server, "nemotron/generate", {"describe": True, "text_input": "Hello"} | parameters, {})
    without = post(server, "nemotron/generate", {"describe": False} | parameters, {})

    assert status == 200
    assert json.loads(json.loads(text)["description"])["context_tokens"] == CONTEXT
    assert with_more[0] == without[0] == 400
    assert "INVALID_ARGUMENT: describe is asked alone" in with_more[1]
    assert "INVALID_ARGUMENT: give exactly one of messages" in without[1]


def test_the_caller_that_a_gateway_names_is_in_the_log_and_has_the_limits(server: Served) -> None:
    with client_of(server, "gateway front") as gateway, client_of(server, "bob") as bob:
        with gateway.stream(CAPITAL, **ENDLESS, caller="carol") as running:
            next(running)
            with pytest.raises(ServerUnavailable, match="front/carol may have 1 requests here") as raised:
                gateway.chat(CAPITAL, caller="carol")
            gateway.chat(CAPITAL, caller="frank", max_tokens=1, request_id="of-frank")
        bob.chat(CAPITAL, caller="frank", max_tokens=1, request_id="of-bob")

    assert raised.value.status == "RESOURCE_EXHAUSTED"
    wait_until(lambda: callers(server).keys() >= {"of-frank", "of-bob"})
    assert callers(server)["of-frank"] == "front/frank"
    # Who is no gateway speaks for itself.
    assert callers(server)["of-bob"] == "bob"


def test_max_tokens_are_an_upper_bound_where_that_is_asked_for(client: Client) -> None:
    question = [{"role": "user", "content": "one " * 900}]

    bounded = client.chat(question, max_tokens=1_000_000, clamp_max_tokens=True, end_id=-1)
    shorter = client.chat(question, max_tokens=5, clamp_max_tokens=True, end_id=-1)

    assert bounded.usage.input_tokens + bounded.usage.output_tokens == CONTEXT
    assert (bounded.finish_reason, shorter.finish_reason) == ("length", "length")
    assert shorter.usage.output_tokens == 5
    with pytest.raises(RequestRejected, match="max_tokens is 1000000; it must be between 1 and"):
        client.chat(question, max_tokens=1_000_000, clamp_max_tokens=False)
    with pytest.raises(RequestRejected, match="min_tokens is 2000, and there is room for"):
        client.chat(question, max_tokens=1_000_000, clamp_max_tokens=True, min_tokens=2000)


@both_clients
def test_json_is_answered_as_what_it_says(served: ServeOptions, ask: Ask) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    greedy: dict[str, Any] = {"temperature": 0.0, "max_tokens": 20, "thinking": False}

    said = ask(served.grpc_url, Json(json.dumps(CAPITAL)), tools=Json(json.dumps([tool]).encode()), **greedy)
    meant = ask(served.grpc_url, CAPITAL, tools=[tool], **greedy)

    assert Reply.of(said) == Reply.of(meant)
    with pytest.raises(RequestRejected, match="messages is not JSON") as raised:
        ask(served.grpc_url, Json('[{"role": "user"'))
    assert raised.value.field == "messages"


def test_json_is_rendered_and_counted_as_what_it_says(client: Client) -> None:
    said, kwargs = Json(json.dumps(CAPITAL)), Json('{"prefill_empty_think": true}')

    prompt = client.render(said, tools=Json("[]"), thinking=False, chat_template_kwargs=kwargs)

    assert prompt == client.render(CAPITAL, thinking=False, chat_template_kwargs={"prefill_empty_think": True})
    assert client.count_tokens(said) == client.count_tokens(CAPITAL)
