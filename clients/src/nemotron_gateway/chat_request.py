"""The body of a chat completion, and what it is for the client.

Messages, tools and schemas go on to the server as they were written: it alone reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from nemotron_client import Json
from nemotron_gateway.errors import invalid
from nemotron_gateway.json_body import NULL, is_null, read, refuse, value_of
from nemotron_gateway.sampling_fields import SamplingFields, StreamOptions

# Told by OpenAI's API about the account and its services: they change no answer here.
IGNORED = frozenset(
    {
        "metadata",
        "moderation",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "verbosity",
    }
)
REFUSED_FIELDS = {
    "audio": "this model writes text only",
    "function_call": "it is deprecated: give tool_choice",
    "functions": "they are deprecated: give tools",
    "prompt_logprobs": "log probabilities are those of the answer",
    "use_beam_search": "give n",
    "web_search_options": "give a tool that searches",
}
# Without end: what these ask for is more than any budget.
_NO_BUDGET = ("xhigh", "max")


class JsonSchema(msgspec.Struct, kw_only=True):
    """What `response_format` of type `json_schema` wraps."""

    name: str | None = None
    description: str | None = None
    schema: msgspec.Raw = NULL
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, kw_only=True):
    """What the text of the answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Reasoning(msgspec.Struct, kw_only=True):
    """How to think, in one object, as routers of many models have it."""

    effort: str | None = None
    max_tokens: int | None = None
    enabled: bool | None = None
    exclude: bool | None = None


class Thinking(msgspec.Struct, kw_only=True):
    """How to think, as Anthropic's API has it."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None


class NvExt(msgspec.Struct, kw_only=True):
    """Fields of NVIDIA's own servers."""

    max_thinking_tokens: int | None = None


class ChatRequest(SamplingFields, kw_only=True):
    """The fields of a chat completion that are honoured; None is as if left out."""

    messages: msgspec.Raw
    tools: msgspec.Raw = NULL
    tool_choice: msgspec.Raw = NULL
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    modalities: list[str] | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: str | None = None
    reasoning: Reasoning | None = None
    thinking: Thinking | None = None
    thinking_token_budget: int | None = None
    max_thinking_tokens: int | None = None
    nvext: NvExt | None = None
    include_reasoning: bool | None = None
    chat_template_kwargs: msgspec.Raw = NULL
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    stream_tool_calls: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as the client takes it: `messages`, `tools`, `thinking` and the other options.

    `fields` are those of the request that have another name than the client's option. `unknown` are the names that no
    field has.
    """

    model: str | None
    messages: Json
    tools: Json | None
    thinking: bool | None
    options: dict[str, Any]
    stream: bool
    stream_options: StreamOptions
    fields: Mapping[str, str]
    unknown: frozenset[str]


def read_chat(body: bytes, kind: type[ChatRequest] = ChatRequest) -> tuple[Asked, ChatRequest]:
    """What is asked for in *body*, and its fields; `ApiError` names the field that is wrong.

    What the server checks is not checked here.
    """
    request, others = read(body, kind)
    refuse(others, REFUSED_FIELDS)
    fields: dict[str, str] = {}
    options: dict[str, Any] = request.options()
    if request.max_completion_tokens is not None:
        options["max_tokens"] = request.max_completion_tokens
        fields["max_tokens"] = "max_completion_tokens"
    if any(kind != "text" for kind in request.modalities or ()):
        raise invalid("modalities: this model writes text only", "modalities", "unsupported_parameter")
    options["logprobs"] = request.logprobs
    options["top_logprobs"] = request.top_logprobs
    options["tool_choice"] = _tool_choice(request.tool_choice)
    options["parallel_tool_calls"] = request.parallel_tool_calls
    # What another server calls a request for what is new: the one way in which this server continues a message.
    options["continue_final_message"] = request.continue_final_message
    options["stream_tool_calls"] = request.stream_tool_calls is not False
    options |= _guide(request.response_format) or request.guide()
    thinking = _thinking(request, options, fields)
    asked = Asked(
        model=request.model,
        messages=Json(bytes(request.messages)),
        tools=_tools(request.tools),
        thinking=thinking,
        options={name: value for name, value in options.items() if value is not None},
        stream=bool(request.stream),
        stream_options=request.stream_options or StreamOptions(),
        fields=fields,
        unknown=others - IGNORED,
    )
    return asked, request


def _tools(raw: msgspec.Raw) -> Json | None:
    # An empty list is what some clients send for no tools.
    return None if bytes(raw).replace(b" ", b"") in (b"null", b"[]") else Json(bytes(raw))


def _tool_choice(raw: msgspec.Raw) -> str | Mapping[str, Any] | None:
    choice: str | dict[str, Any] | None = value_of(raw, str | dict[str, Any] | None, "tool_choice")
    if isinstance(choice, str) and choice not in ("auto", "none", "required"):
        raise invalid(
            f"tool_choice is {choice!r:.100}; it must be none, auto, required, or an object that names a function",
            "tool_choice",
        )
    return choice


def _guide(wanted: ResponseFormat | None) -> dict[str, Any]:
    if wanted is None or wanted.type == "text":
        return {}
    if wanted.type == "json_object":
        return {"guide_type": "json"}
    if wanted.json_schema is None or is_null(wanted.json_schema.schema):
        raise invalid(
            "response_format.json_schema.schema is missing; give the JSON Schema", "response_format.json_schema.schema"
        )
    return {"guide_type": "json_schema", "guide": Json(bytes(wanted.json_schema.schema))}


def _thinking(request: ChatRequest, options: dict[str, Any], fields: dict[str, str]) -> bool | None:
    """Whether to think; how long, and whether to tell, go into *options*."""
    kwargs = dict(value_of(request.chat_template_kwargs, dict[str, msgspec.Raw] | None, "chat_template_kwargs") or {})
    asked: dict[str, bool] = {}
    for name in ("enable_thinking", "thinking"):
        value = value_of(kwargs.pop(name, NULL), bool | None, f"chat_template_kwargs.{name}")
        if value is not None:
            asked[f"chat_template_kwargs.{name}"] = value
    if kwargs:
        options["chat_template_kwargs"] = {name: value_of(raw, Any, name) for name, raw in kwargs.items()}
    reasoning = request.reasoning or Reasoning()
    if reasoning.enabled is not None:
        asked["reasoning.enabled"] = reasoning.enabled
    if request.thinking:
        asked["thinking.type"] = request.thinking.type != "disabled"
    efforts = {"reasoning_effort": request.reasoning_effort, "reasoning.effort": reasoning.effort}
    for name, effort in efforts.items():
        if effort in _NO_BUDGET:
            asked[name] = True
        elif effort is not None:
            options["reasoning_effort"] = effort
            fields["reasoning_effort"] = name
    budgets = {
        "max_thinking_tokens": request.max_thinking_tokens,
        "thinking_token_budget": request.thinking_token_budget,
        "nvext.max_thinking_tokens": request.nvext.max_thinking_tokens if request.nvext else None,
        "reasoning.max_tokens": reasoning.max_tokens,
        "thinking.budget_tokens": request.thinking.budget_tokens if request.thinking else None,
    }
    for name, budget in budgets.items():
        # Below 0 is no budget, as other servers have it.
        if budget is not None and budget >= 0:
            options["max_thinking_tokens"] = budget
            fields["max_thinking_tokens"] = name
            break
    options["include_reasoning"] = False if reasoning.exclude else request.include_reasoning
    if len(set(asked.values())) > 1:
        first, second = next((a, b) for a in asked for b in asked if asked[a] and not asked[b])
        raise invalid(f"{first} switches thinking on, and {second} off; leave one of them out", first)
    return next(iter(asked.values()), None)
