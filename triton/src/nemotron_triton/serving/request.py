"""One request to the `nemotron` model, read from its tensors' values and checked before any work is done."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nemotron_client import wire
from nemotron_triton.chat.conversation import Conversation, ToolChoice, read_choice, read_conversation, read_functions
from nemotron_triton.chat.profiles import Profile
from nemotron_triton.chat.render import RenderOptions, render_options, thinking_mode
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.errors import RequestError

MAX_TEXT_CHARACTERS = 4 * 1024 * 1024
_OF_CONVERSATIONS = (wire.TOOLS, wire.TOOL_CHOICE, wire.PARALLEL_TOOL_CALLS, wire.CHAT_TEMPLATE_KWARGS)


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A checked request: a conversation or a finished prompt, and how to generate.

    `thinking` is the mode the model is in, `max_tokens` None what its makers recommend, as far as the context has room.
    `choices` is how many answers are wanted; `echo` puts the finished prompt before each. `return_log_probs` and
    `sampling.logprobs`, the alternatives to tell with them, go together.
    """

    conversation: Conversation | None
    text: str
    render: RenderOptions
    thinking: bool
    choice: ToolChoice
    parallel: bool
    stream: bool
    max_tokens: int | None
    sampling: Sampling
    stop_words: tuple[str, ...] = ()
    choices: int = 1
    echo: bool = False
    return_log_probs: bool = False


def read_request(values: Mapping[str, Any], profile: Profile) -> ChatRequest:
    """Check the *values* of a request's tensors, by name; `RequestError` names the tensor and what it may hold."""
    text = values.get(wire.TEXT_INPUT.name)
    if (wire.MESSAGES.name in values) == (text is not None):
        raise RequestError(
            f"give exactly one of {wire.MESSAGES.name} (a conversation) and {wire.TEXT_INPUT.name} (a finished prompt)"
        )
    if text == "":
        raise RequestError(f"{wire.TEXT_INPUT.name} is empty; give the prompt")
    if text and len(text) > MAX_TEXT_CHARACTERS:
        raise RequestError(
            f"{wire.TEXT_INPUT.name} has {len(text)} characters; at most {MAX_TEXT_CHARACTERS} are accepted"
        )
    if text and (misplaced := [each.name for each in _OF_CONVERSATIONS if each.name in values]):
        raise RequestError(f"{misplaced[0]} goes with {wire.MESSAGES.name}; a finished prompt holds its own tools")
    conversation, choice = (None, ToolChoice("none")) if text else read_chat(values)
    render = read_render_options(values)
    thinking = bool(render.thinking)
    if conversation:
        thinking = thinking_mode(profile, conversation, render.thinking)
    mode = profile.sampling(thinking=thinking, tools=bool(conversation and conversation.functions))
    max_tokens = values.get(wire.MAX_TOKENS.name)
    return ChatRequest(
        conversation=conversation,
        text=text or "",
        render=render,
        thinking=thinking,
        choice=choice,
        parallel=values.get(wire.PARALLEL_TOOL_CALLS.name, True),
        stream=values.get(wire.STREAM.name, False),
        max_tokens=None if max_tokens is None else int(_within(wire.MAX_TOKENS, max_tokens, 1, math.inf)),
        sampling=Sampling(
            max_tokens=mode.max_tokens,
            temperature=_within(wire.TEMPERATURE, values.get(wire.TEMPERATURE.name, mode.temperature), 0, 100),
            top_p=_within(wire.TOP_P, values.get(wire.TOP_P.name, mode.top_p), 0, 1),
            top_k=int(_within(wire.TOP_K, values.get(wire.TOP_K.name, 0), 0, math.inf)),
            seed=values.get(wire.SEED.name),
            repetition_penalty=_within(
                wire.REPETITION_PENALTY, values.get(wire.REPETITION_PENALTY.name, 1.0), 0.01, 10
            ),
            presence_penalty=_within(wire.PRESENCE_PENALTY, values.get(wire.PRESENCE_PENALTY.name, 0.0), -2, 2),
            frequency_penalty=_within(wire.FREQUENCY_PENALTY, values.get(wire.FREQUENCY_PENALTY.name, 0.0), -2, 2),
            ignore_end=_ignore_end(values.get(wire.END_ID.name)),
        ),
    )


def read_chat(values: Mapping[str, Any]) -> tuple[Conversation, ToolChoice]:
    """The conversation and the tool choice in the `messages`, `tools` and `tool_choice` tensors.

    With the choice `none` the conversation has no tools: what the model does not see it cannot call.
    """
    conversation = read_conversation(_json(values, wire.MESSAGES), _json(values, wire.TOOLS))
    choice = read_tool_choice(values, conversation.functions)
    return (replace(conversation, functions=()) if choice.mode == "none" else conversation), choice


def read_tools(values: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...] | None:
    """The functions in the `tools` tensor; None without it."""
    tools = _json(values, wire.TOOLS)
    return None if tools is None else read_functions(tools)


def read_tool_choice(values: Mapping[str, Any], functions: Iterable[Mapping[str, Any]]) -> ToolChoice:
    """The `tool_choice` tensor: a plain word, or JSON."""
    word = values.get(wire.TOOL_CHOICE.name)
    return read_choice(word if word in ("auto", "none", "required") else _json(values, wire.TOOL_CHOICE), functions)


def read_render_options(values: Mapping[str, Any]) -> RenderOptions:
    """What the `thinking` and `chat_template_kwargs` tensors say."""
    return render_options(values.get(wire.THINKING.name), _json(values, wire.CHAT_TEMPLATE_KWARGS))


def _json(values: Mapping[str, Any], tensor: wire.Tensor) -> Any:
    """The JSON in a tensor, None where the request has no such tensor."""
    text = values.get(tensor.name)
    if text is None:
        return None
    if len(text) > MAX_TEXT_CHARACTERS:
        raise RequestError(f"{tensor.name} has {len(text)} characters; at most {MAX_TEXT_CHARACTERS} are accepted")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise RequestError(f"{tensor.name} is nested too deeply") from error
    except ValueError as error:
        raise RequestError(f"{tensor.name} is not JSON: {error}") from error


def _within(tensor: wire.Tensor, value: float, low: float, high: float) -> float:
    # Written so that NaN fails too.
    if not low <= value <= high:
        limits = f"between {low} and {high}" if high < math.inf else f"at least {low}"
        raise RequestError(f"{tensor.name} is {value}; it must be {limits}")
    return value


def _ignore_end(end_id: int | None) -> bool:
    if end_id not in (None, -1):
        raise RequestError(f"{wire.END_ID.name} is {end_id}; only -1 (generate past the end) can be asked for")
    return end_id == -1
