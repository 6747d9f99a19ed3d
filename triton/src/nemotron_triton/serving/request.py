"""One request to the `nemotron` model, read from its tensors' values and checked before any work is done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nemotron_client import wire
from nemotron_triton.chat.conversation import (
    Conversation,
    ToolChoice,
    check_depth,
    read_choice,
    read_conversation,
    read_functions,
)
from nemotron_triton.chat.profiles import Profile
from nemotron_triton.chat.render import RenderOptions, render_options, thinking_mode
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.guide_request import read_guide
from nemotron_triton.serving.sampling_request import MAX_CHOICES, integer, read_sampling, read_words
from nemotron_triton.serving.settings import Settings

# More than any model answers at once; taking it apart takes seconds.
MAX_RAW_OUTPUT_BYTES = 1 << 20
_OF_CONVERSATIONS = (wire.TOOLS, wire.TOOL_CHOICE, wire.PARALLEL_TOOL_CALLS, wire.CHAT_TEMPLATE_KWARGS)


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A checked request: a conversation or a finished prompt, and how to generate.

    `thinking` is the mode the model is in, `max_tokens` None what its makers recommend, as far as the context has room.
    `choices` is how many answers are wanted; `echo` puts the finished prompt before each.
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


def read_request(values: Mapping[str, Any], profile: Profile, settings: Settings, codec: TokenCodec) -> ChatRequest:
    """Check the *values* of a request's tensors, by name; `RequestError` names the tensor and what it may hold."""
    text = values.get(wire.TEXT_INPUT.name)
    if (wire.MESSAGES.name in values) == (text is not None):
        raise RequestError(
            f"give exactly one of {wire.MESSAGES.name} (a conversation) and {wire.TEXT_INPUT.name} (a finished prompt)"
        )
    if text == "":
        raise RequestError(f"{wire.TEXT_INPUT.name} is empty; give the prompt")
    if text and (misplaced := [each.name for each in _OF_CONVERSATIONS if each.name in values]):
        raise RequestError(f"{misplaced[0]} goes with {wire.MESSAGES.name}; a finished prompt holds its own tools")
    check_sizes(values, settings)
    conversation, choice = (None, ToolChoice("none")) if text else read_chat(values, settings)
    render = read_render_options(values)
    thinking = bool(render.thinking)
    if conversation:
        thinking = thinking_mode(profile, conversation, render.thinking)
    mode = profile.sampling(thinking=thinking, tools=bool(conversation and conversation.functions))
    guide = read_guide(values)
    sampling = read_sampling(values, mode, codec, guide)
    _check_guided(sampling, choice)
    stream = values.get(wire.STREAM.name, False)
    return ChatRequest(
        conversation=conversation,
        text=text or "",
        render=render,
        thinking=thinking,
        choice=choice,
        parallel=values.get(wire.PARALLEL_TOOL_CALLS.name, True),
        stream=stream,
        max_tokens=sampling.max_tokens if wire.MAX_TOKENS.name in values else None,
        sampling=sampling,
        stop_words=read_words(values, wire.STOP_WORDS),
        choices=integer(values, wire.NUM_RETURN_SEQUENCES, 1, 1, MAX_CHOICES),
        # As in tensorrt_llm_bls: only a whole answer has its prompt before it, and only when that is asked for.
        echo=bool(text) and not stream and not values.get(wire.EXCLUDE_INPUT_IN_OUTPUT.name, True),
    )


def read_chat(values: Mapping[str, Any], settings: Settings) -> tuple[Conversation, ToolChoice]:
    """The conversation and the tool choice in the `messages`, `tools` and `tool_choice` tensors.

    With the choice `none` the conversation has no tools: what the model does not see it cannot call.
    """
    messages, tools = _json(values, wire.MESSAGES), _json(values, wire.TOOLS)
    _check_count(wire.MESSAGES, messages, settings.max_messages)
    _check_count(wire.TOOLS, tools, settings.max_tools)
    conversation = read_conversation(messages, tools)
    choice = read_tool_choice(values, conversation.functions)
    return (replace(conversation, functions=()) if choice.mode == "none" else conversation), choice


def read_tools(values: Mapping[str, Any], settings: Settings) -> tuple[Mapping[str, Any], ...] | None:
    """The functions in the `tools` tensor; None without it."""
    tools = _json(values, wire.TOOLS)
    _check_count(wire.TOOLS, tools, settings.max_tools)
    return None if tools is None else read_functions(tools)


def read_tool_choice(values: Mapping[str, Any], functions: Iterable[Mapping[str, Any]]) -> ToolChoice:
    """The `tool_choice` tensor: a plain word, or JSON."""
    word = values.get(wire.TOOL_CHOICE.name)
    return read_choice(word if word in ("auto", "none", "required") else _json(values, wire.TOOL_CHOICE), functions)


def read_render_options(values: Mapping[str, Any]) -> RenderOptions:
    """What the `thinking` and `chat_template_kwargs` tensors say."""
    return render_options(values.get(wire.THINKING.name), _json(values, wire.CHAT_TEMPLATE_KWARGS))


def check_sizes(values: Mapping[str, Any], settings: Settings) -> None:
    """Refuse what is too long before anything reads it."""
    for name, value in values.items():
        limit = settings.max_prompt_bytes
        if name == wire.RAW_OUTPUT.name:
            limit = min(limit, MAX_RAW_OUTPUT_BYTES)
        if isinstance(value, str) and (size := byte_count(value)) > limit:
            raise RequestError(f"{name} has {size} bytes; at most {limit} are accepted")


def byte_count(text: str) -> int:
    """How long *text* is in UTF-8, without a copy of it where that is not needed."""
    return len(text) if text.isascii() else len(text.encode())


def _check_count(tensor: wire.Tensor, found: object, limit: int) -> None:
    if isinstance(found, list) and len(found) > limit:
        raise RequestError(f"{tensor.name} has {len(found)} entries; at most {limit} are accepted")


def _json(values: Mapping[str, Any], tensor: wire.Tensor) -> Any:
    """The JSON in a tensor, None where the request has no such tensor."""
    text = values.get(tensor.name)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise RequestError(f"{tensor.name} is nested too deeply") from error
    except ValueError as error:
        raise RequestError(f"{tensor.name} is not JSON: {error}") from error
    check_depth(tensor.name, found)
    return found


def _check_guided(sampling: Sampling, choice: ToolChoice) -> None:
    """Refuse what cannot go together with a guide, or with a call that must come, which is guided too."""
    if not (sampling.guide or choice.forced):
        return
    name = wire.TOOL_CHOICE.name if choice.forced else wire.GUIDED_DECODING_GUIDE_TYPE.name
    for tensor, asked in (
        (wire.GUIDED_DECODING_GUIDE_TYPE, sampling.guide and choice.forced),
        (wire.MIN_TOKENS, sampling.min_tokens),
        (wire.BAD_WORDS, sampling.bad_ids),
        (wire.END_ID, sampling.ignore_end),
    ):
        if asked:
            raise RequestError(f"{tensor.name} cannot go with {name}, which says what the answer must look like")
