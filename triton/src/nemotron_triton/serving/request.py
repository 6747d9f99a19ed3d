"""One request to the `nemotron` model, read from its tensors' values and checked before any work is done."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemotron_client import wire
from nemotron_triton.chat.conversation import Conversation, read_conversation
from nemotron_triton.chat.profiles import Profile
from nemotron_triton.chat.render import thinking_mode
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.errors import RequestError

MAX_TEXT_CHARACTERS = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A checked request: a conversation or a finished prompt, and how to generate.

    `max_tokens` None means what the model's makers recommend, as far as the context has room.
    """

    conversation: Conversation | None
    text: str
    thinking: bool | None
    stream: bool
    max_tokens: int | None
    sampling: Sampling

    @property
    def has_tools(self) -> bool:
        """Whether the model may call anything."""
        return self.conversation is not None and bool(self.conversation.functions)


def read_request(values: Mapping[str, Any], profile: Profile) -> ChatRequest:
    """Check the *values* of a request's tensors, by name; `RequestError` names the tensor and what it may hold."""
    messages = values.get(wire.MESSAGES.name)
    text = values.get(wire.TEXT_INPUT.name)
    if (messages is None) == (text is None):
        raise RequestError(
            f"give exactly one of {wire.MESSAGES.name} (a conversation) and {wire.TEXT_INPUT.name} (a finished prompt)"
        )
    if text == "":
        raise RequestError(f"{wire.TEXT_INPUT.name} is empty; give the prompt")
    if text and len(text) > MAX_TEXT_CHARACTERS:
        raise RequestError(
            f"{wire.TEXT_INPUT.name} has {len(text)} characters; at most {MAX_TEXT_CHARACTERS} are accepted"
        )
    if text and wire.TOOLS.name in values:
        raise RequestError(f"{wire.TOOLS.name} goes with {wire.MESSAGES.name}; a finished prompt holds its own tools")
    conversation = read_texts(messages, values.get(wire.TOOLS.name)) if messages is not None else None
    thinking = values.get(wire.THINKING.name)
    mode = profile.sampling(thinking=thinking_mode(conversation, thinking) if conversation else bool(thinking))
    max_tokens = values.get(wire.MAX_TOKENS.name)
    return ChatRequest(
        conversation=conversation,
        text=text or "",
        thinking=thinking,
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


def read_texts(messages: str, tools: str | None) -> Conversation:
    """The conversation in the JSON of the `messages` and `tools` tensors."""
    return read_conversation(_json(wire.MESSAGES, messages), None if tools is None else _json(wire.TOOLS, tools))


def _json(tensor: wire.Tensor, text: str) -> object:
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
