"""Clients of OpenAI's API that others make, through the gateway, to the served demo model.

Each runs a program of `tests/clients/` in an environment of its own, and gets what our own client gets. instructor is
there for structured answers alone, which are what it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from client_environments import Program
from gateways import gateway
from nemotron_client import Client, Reply
from nemotron_triton.server import ServeOptions

CLIENTS = {
    "openai-3": Program("openai_python.py", "openai-3"),
    "openai-2": Program("openai_python.py", "openai-2"),
    "openai-node": Program("openai_node.mjs"),
    "langchain": Program("langchain_chat.py", "langchain"),
    "agents": Program("agents_sdk.py", "agents"),
    "pydantic-ai": Program("pydantic_agent.py", "pydantic-ai"),
    "litellm": Program("litellm_chat.py", "litellm"),
    "ai-sdk-compatible": Program("ai_sdk.mjs", arguments=("compatible",)),
    "ai-sdk-openai": Program("ai_sdk.mjs", arguments=("openai",)),
    "instructor": Program("instructor_chat.py", "instructor"),
}
TYPES = ("openai-3", "openai-2")
ALL = [name for name in CLIENTS if name != "instructor"]
# These leave out what is not in OpenAI's own API.
NO_THINKING = {"langchain", "ai-sdk-openai"}
# Who puts fields that OpenAI's API lacks together from the pieces of a stream, beside those that hide them.
THINKING_BESIDE_CALLS = ["openai-3", "openai-2", "agents", "litellm", "ai-sdk-compatible"]
SDKS = ["openai-3", "openai-2", "openai-node"]
KEY = "correct-horse-battery-staple"
CAPITAL = "What is the capital of France?"
TIP = "My bill is $100. What will be the amount for 18% tip?"
TWO = "What is a 15% tip on $80 and a 20% tip on $60?"
TIP_CALL = ["calculate_tip", {"bill_total": 100, "tip_percentage": 18}]
TWO_CALLS = [
    ["calculate_tip", {"bill_total": 80, "tip_percentage": 15}],
    ["calculate_tip", {"bill_total": 60, "tip_percentage": 20}],
]
Answers = Callable[[str], dict[str, Any]]
pytestmark = pytest.mark.clients


def function(name: str, description: str, **parameters: str) -> dict[str, Any]:
    """A tool whose *parameters* have these types."""
    properties = {parameter: {"type": kind} for parameter, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


# Those of the program that the model's makers show.
TOOLS = [
    function("calculate_tip", "Calculate the tip for a bill", bill_total="integer", tip_percentage="integer"),
    function(
        "convert_currency",
        "Convert an amount between currencies",
        amount="integer",
        from_currency="string",
        to_currency="string",
    ),
]
TASK = {"model": "Llama-Nemotron-Nano-4B-v1.1", "key": KEY, "capital": CAPITAL, "tip": TIP, "two": TWO, "tools": TOOLS}


@pytest.fixture(scope="session")
def url(served: ServeOptions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a gateway, for those who have the key."""
    keys: Path = tmp_path_factory.mktemp("keys") / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"the-test: {KEY}\n")
    with gateway(served.grpc_url, keys=keys, any_model=False) as running:
        yield f"http://127.0.0.1:{running.port}/v1"


@pytest.fixture(scope="session")
def answers(url: str) -> Answers:
    """What the program of a client printed, which runs once."""
    return cache(lambda name: CLIENTS[name].run(url, TASK))


@pytest.fixture
def plain(client: Client) -> Reply:
    """What our own client gets, without thinking."""
    return client.chat([{"role": "user", "content": CAPITAL}], temperature=0.0, thinking=False)


@pytest.fixture
def thought(client: Client) -> Reply:
    """What our own client gets, with thinking."""
    return client.chat([{"role": "user", "content": CAPITAL}], temperature=0.0, thinking=True)


@pytest.mark.parametrize("name", ALL)
def test_an_answer_is_that_of_our_own_client_whole_and_streamed(answers: Answers, plain: Reply, name: str) -> None:
    found = answers(name)

    assert plain.content
    assert [found["plain"], found["streamed"]] == [plain.content, plain.content]


@pytest.mark.parametrize("name", ALL)
def test_thinking_is_apart_from_the_text(answers: Answers, thought: Reply, name: str) -> None:
    found = answers(name)

    for answer in (found["thinking"], found["thinking_streamed"]):
        reasoning = {text for field, text in answer.items() if field != "content"} - {""}
        assert answer["content"] == thought.content
        assert reasoning == (set() if name in NO_THINKING else {thought.reasoning})


@pytest.mark.parametrize("name", ALL)
def test_two_calls_in_one_answer_stay_two_whole_and_streamed(answers: Answers, name: str) -> None:
    found = answers(name)

    assert found["calls"] == TWO_CALLS
    assert found["calls_streamed"]["calls"] == TWO_CALLS
    assert found["calls_streamed"].get("finish", "tool_calls") == "tool_calls"


@pytest.mark.parametrize("name", THINKING_BESIDE_CALLS)
def test_thinking_is_streamed_before_calls(answers: Answers, client: Client, name: str) -> None:
    own = client.chat([{"role": "user", "content": TWO}], tools=TOOLS, temperature=0.0, thinking=True)

    streamed = answers(name)["calls_streamed"]

    # The Agents SDK writes the tool's schema in its own way, about which the model thinks the same.
    assert streamed["reasoning"] == own.reasoning


@pytest.mark.parametrize("name", ALL)
def test_a_result_becomes_an_answer(answers: Answers, name: str) -> None:
    found = answers(name)

    for loop in filter(None, (found["loop"], found.get("loop_streamed"))):
        assert loop["calls"] == [TIP_CALL]
        assert "18" in loop["content"]


@pytest.mark.parametrize("name", ALL)
def test_messages_go_back_as_they_came(answers: Answers, name: str) -> None:
    found = answers(name)["echoed"]

    assert len(found) >= 2
    assert {"Paris" in answer for answer in found} == {True}


@pytest.mark.parametrize("name", CLIENTS)
def test_an_answer_follows_its_schema_behind_thinking_too(answers: Answers, name: str) -> None:
    found = answers(name)

    cities = [*found["structured"], *found.get("structured_streamed", [])]
    assert len(cities) >= 2
    for city in cities:
        assert city["name"] == "Paris"
        assert 0 <= city["letters"] <= 9


@pytest.mark.parametrize("name", TYPES)
def test_a_schema_suppresses_no_thinking(answers: Answers, name: str) -> None:
    thoughts = [city["thought"] for city in answers(name)["structured"]]

    assert thoughts == [False, False, True, True]


@pytest.mark.parametrize("name", SDKS)
def test_a_mistake_is_the_error_that_the_sdk_has_for_it(answers: Answers, name: str) -> None:
    found = answers(name)["errors"]

    assert found == {
        "key": ["AuthenticationError", 401, "invalid_api_key", None],
        "model": ["NotFoundError", 404, "model_not_found", "model"],
        "path": ["NotFoundError", 404, "not_found", None],
        "field": ["BadRequestError", 400, "out_of_range", "top_p"],
        "long": ["BadRequestError", 400, "context_length_exceeded", "messages"],
        "stream": ["BadRequestError", 400, "context_length_exceeded", "messages"],
    }


@pytest.mark.parametrize("name", ["ai-sdk-compatible", "ai-sdk-openai"])
def test_the_ai_sdk_reads_errors_and_counts(answers: Answers, name: str) -> None:
    found = answers(name)

    assert found["errors"]["field"] == ["AI_APICallError", 400, "out_of_range"]
    assert found["errors"]["long"] == ["AI_APICallError", 400, "context_length_exceeded"]
    assert found["usage"]["totalTokens"] == found["usage"]["inputTokens"] + found["usage"]["outputTokens"] > 0


@pytest.mark.parametrize("name", TYPES)
def test_the_program_of_the_makers_runs(answers: Answers, name: str) -> None:
    thinking, calls = answers(name)["makers"]

    assert "calculate_tip" in thinking
    assert calls == [TIP_CALL]


@pytest.mark.parametrize("name", TYPES)
def test_the_helper_for_streams_puts_everything_together(answers: Answers, plain: Reply, name: str) -> None:
    found = answers(name)["helper"]

    assert found["content"] == plain.content
    assert set(found["kinds"]) == {"chunk", "content.delta", "content.done"}
    assert found["usage"]["completion_tokens"] == plain.usage.output_tokens


@pytest.mark.parametrize("name", TYPES)
def test_every_choice_of_tools_is_the_same_in_a_stream(answers: Answers, name: str) -> None:
    found = answers(name)["choices"]

    called = [[TIP_CALL]] * 2
    assert found == {"auto": called, "none": [[], []], "required": called, "named": called}


@pytest.mark.parametrize("name", TYPES)
def test_the_models_are_listed_by_every_name(answers: Answers, name: str) -> None:
    names, first = answers(name)["models"]

    assert names[0] == first
    assert {"nvidia/Llama-3.1-Nemotron-Nano-4B-v1.1", "Llama-Nemotron-Nano-4B-v1.1"} < set(names)


def test_litellm_takes_it_for_every_kind_of_server(answers: Answers, thought: Reply) -> None:
    found = answers("litellm")["providers"]

    assert len(found) == 6
    assert found == [{"reasoning": thought.reasoning, "content": thought.content}] * 6


@pytest.mark.parametrize("pins", TYPES)
def test_every_document_is_what_the_types_of_the_sdk_say(url: str, pins: str) -> None:
    looked_at = Program("openai_types.py", pins).run(url, TASK)

    found, errors = looked_at["found"], looked_at["errors"]
    own = {"logprobs.content.part", "problems", "stop_reason"}
    own |= {f"{place}.{field}" for place in ("delta", "message") for field in ("reasoning", "reasoning_content")}
    models = found.pop("models")
    assert len(found) == 19 * 3
    assert {name for _, unknown in found.values() for name in unknown} == {f"choices.{name}" for name in own}
    assert all(count == 1 for name, (count, _) in found.items() if "streamed" not in name)
    assert all(count > 0 for name, (count, _) in found.items() if "streamed" in name)
    assert models[1] == ["max_model_len", "root"]
    assert errors == {
        "model": [404, 1, ["request_id"]],
        **{name: [400, 1, ["request_id"]] for name in ("field", "type", "messages", "long")},
    }
