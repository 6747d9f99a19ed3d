"""A request, read from the values of its tensors and checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemotron_client import wire
from nemotron_triton.chat.conversation import Conversation, ToolChoice
from nemotron_triton.chat.grammar import guides_calls
from nemotron_triton.chat.profiles import Profile
from nemotron_triton.chat.render import RenderOptions, thinking_mode
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.admission import PRIORITIES
from nemotron_triton.serving.guide_request import read_guide
from nemotron_triton.serving.prompt_request import read_source
from nemotron_triton.serving.sampling_request import MAX_CHOICES, STRICT, read_sampling
from nemotron_triton.serving.settings import Settings
from nemotron_triton.serving.thinking_request import read_max_thinking_tokens, read_render_options
from nemotron_triton.serving.values import Values, check_sizes, integer, words


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A checked request: a conversation or a finished prompt, and how to generate.

    `thinking` is the mode the model is in. `max_tokens` is None where those of `sampling` count as far as the context
    has room: where the request asks for that, and where they are the profile's. `choices` is the number of answers; of
    `priority` 0 they begin before those of others that have 1; `echo` puts the finished prompt before each. Each answer
    may think `max_thinking_tokens`, None for as long as it likes, and `include_reasoning` says whether the caller gets
    to read that. With `stream_tool_calls` the arguments of calls come in pieces.
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
    priority: int = 0
    echo: bool = False
    max_thinking_tokens: int | None = None
    include_reasoning: bool = True
    stream_tool_calls: bool = False


def read_request(values: Values, profile: Profile, settings: Settings, codec: TokenCodec) -> ChatRequest:
    """Check the *values* of a request's tensors; `RequestError` names the tensor and what it may hold."""
    if values.get(wire.DESCRIBE):
        raise RequestError(f"{wire.DESCRIBE} is asked alone; leave it out, or all other tensors")
    check_sizes(values, settings)
    conversation, choice = read_source(values, settings)
    text = values.get(wire.TEXT_INPUT, "")
    render = read_render_options(values)
    thinking = thinking_mode(profile, conversation, render.thinking) if conversation else bool(render.thinking)
    max_thinking_tokens = read_max_thinking_tokens(values, render)
    defaults = profile.sampling(thinking=thinking, tools=bool(conversation and conversation.functions))
    sampling = read_sampling(values, defaults, codec, read_guide(values))
    _check_guided(sampling, choice, conversation.functions if conversation else ())
    include_reasoning = values.get(wire.INCLUDE_REASONING, True)
    if sampling.logprobs is not None and not include_reasoning:
        raise RequestError(
            f"{wire.RETURN_LOG_PROBS} cannot go with {wire.INCLUDE_REASONING} false: log probabilities name the tokens "
            "of the thinking"
        )
    stream = values.get(wire.STREAM, False)
    exact = wire.MAX_TOKENS in values and not values.get(wire.CLAMP_MAX_TOKENS, False)
    return ChatRequest(
        conversation=conversation,
        text=text,
        render=render,
        thinking=thinking,
        choice=choice,
        parallel=values.get(wire.PARALLEL_TOOL_CALLS, True),
        stream=stream,
        max_tokens=sampling.max_tokens if exact else None,
        sampling=sampling,
        stop_words=words(values, wire.STOP_WORDS),
        choices=integer(values, wire.NUM_RETURN_SEQUENCES, 1, 1, MAX_CHOICES),
        priority=integer(values, wire.PRIORITY, 0, 0, PRIORITIES - 1),
        # As in tensorrt_llm_bls: only a whole answer has its prompt before it, and only when that is asked for.
        echo=bool(text) and not stream and not values.get(wire.EXCLUDE_INPUT_IN_OUTPUT, True),
        max_thinking_tokens=max_thinking_tokens,
        include_reasoning=include_reasoning,
        stream_tool_calls=stream and values.get(wire.STREAM_TOOL_CALLS, False),
    )


def may_guide_calls(values: Values) -> bool:
    """Whether the request may need a grammar of its tools, which can take a second to write."""
    return values.get(wire.TOOL_CHOICE) not in (None, "auto", "none") or "strict" in values.get(wire.TOOLS, "")


def _check_guided(sampling: Sampling, choice: ToolChoice, functions: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what contradicts a guide, or tool calls that are forced or strict, which are guided too."""
    calls = guides_calls(functions, choice)
    if not (sampling.guide or calls):
        return
    guide = f"{wire.GUIDED_DECODING_GUIDE_TYPE}"
    if calls:
        guide = f"{wire.TOOL_CHOICE}" if choice.forced else STRICT
    for tensor, is_set in (
        (wire.GUIDED_DECODING_GUIDE_TYPE, sampling.guide and calls),
        (wire.MIN_TOKENS, sampling.min_tokens),
        (wire.BAD_WORDS, sampling.bad_ids),
        (wire.END_ID, sampling.ignore_end),
    ):
        if is_set:
            raise RequestError(f"{tensor} cannot go with {guide}, which says what the answer must look like")
