"""What a request may say beside its messages: written once, for every method of both clients.

What is left out is left to the server: sampling then follows the model's recommendation for the thinking mode.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypedDict

from nemotron_client import wire
from nemotron_client.errors import InvalidRequest
from nemotron_client.json_text import Json
from nemotron_client.shapes import bare_schema
from nemotron_client.spelling import did_you_mean


class GenerateOptions(TypedDict, total=False):
    """How to generate, and how long that may take.

    timeout_s           seconds for the whole call, attempts that fail included (default: the client's)
    max_retries         further attempts where one failed before the first token (default: the client's)
    max_tokens          most tokens to generate, the thinking's among them
    temperature         0 is greedy
    top_p, top_k, min_p which tokens to draw from
    seed                makes sampling repeatable, below 2**64; a negative one counts from there
    repetition_penalty, presence_penalty, frequency_penalty
                        against words that came before
    no_repeat_ngram_size
                        no sequence of so many tokens comes twice
    min_tokens          fewest tokens before the answer may end
    end_id              one more token that ends the answer; -1: generate on past the model's own
    stop                the answer ends before this word, or the first of these
    stop_token_ids      more tokens that end the answer
    bad_words           words that the answer must not hold
    logit_bias          what is added to the logits of tokens, by their ids, -100 to 100
    word_bias           the same by text, for each token of it
    guide_type          what the text behind the thinking must look like: json, json_schema, regex
    guide               the schema (also as OpenAI wraps it) or the expression
    n                   how many answers to give, 8 at most; `choice` of an event says of which it is
    logprobs            true: `Logprobs` events with the log probability of each token
    top_logprobs        how many likeliest tokens to give with each, 20 at most
    priority            0 (default), or 1 for what can wait: it begins when nothing else waits
    max_thinking_tokens most tokens to think, after which the thinking is ended at the next line's end, at most 16
                        tokens later; 0: do not think. A fifth of max_tokens is kept for the answer
    include_reasoning   false: the thinking is counted, and its text left out
    clamp_max_tokens    true: a larger max_tokens than the context has room for means that room
    request_id          the request's name in the server's log, and in `Finish` (default: made by the client), of 1 to
                        128 visible ASCII characters
    traceparent         the trace that the request is part of, as W3C's header has it
    caller              for whom a gateway asks, 1 to 64 visible ASCII characters; a server heeds it only from callers
                        that its file of secrets calls gateways
    """

    timeout_s: float | None
    max_retries: int | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    min_p: float | None
    no_repeat_ngram_size: int | None
    min_tokens: int | None
    end_id: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    bad_words: Sequence[str] | None
    logit_bias: Mapping[int, float] | Mapping[str, float] | Json | None
    word_bias: Mapping[str, float] | None
    guide_type: Literal["json", "json_schema", "regex"] | None
    guide: str | Mapping[str, Any] | Json | None
    n: int | None
    logprobs: bool | None
    top_logprobs: int | None
    priority: int | None
    max_thinking_tokens: int | None
    include_reasoning: bool | None
    clamp_max_tokens: bool | None
    request_id: str | None
    traceparent: str | None
    caller: str | None


class ChatOptions(GenerateOptions, total=False):
    """How to answer a conversation, beside how to generate.

    tool_choice           auto, none, required, or the name of the function to call (OpenAI's dict does as well)
    parallel_tool_calls   false: one call at most
    chat_template_kwargs  further options of the model's template
    stream_tool_calls     true: the arguments of a call come in pieces (`ToolCallDelta`), as the model writes them
    reasoning_effort      none: do not think; minimal, low, medium, high: think 256, 1,024, 4,096, 16,384 tokens at most
    continue_final_message
                          true: the answer goes on where the last message, the assistant's, ends; it holds what is new
    """

    tool_choice: str | Mapping[str, Any] | Json | None
    parallel_tool_calls: bool | None
    chat_template_kwargs: Mapping[str, Any] | Json | None
    stream_tool_calls: bool | None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None
    continue_final_message: bool | None


class RenderOptions(TypedDict, total=False):
    """What a prompt depends on, beside its messages and tools; all means what it means for an answer.

    timeout_s            seconds for the whole call, attempts that fail included (default: the client's)
    tool_choice          none: the prompt has no tools
    chat_template_kwargs further options of the model's template
    max_thinking_tokens  0: the prompt switches thinking off
    reasoning_effort     none: the prompt switches thinking off; any other switches it on
    continue_final_message
                         true: the prompt ends where the last message, the assistant's, ends
    """

    timeout_s: float | None
    tool_choice: str | Mapping[str, Any] | Json | None
    chat_template_kwargs: Mapping[str, Any] | Json | None
    max_thinking_tokens: int | None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None
    continue_final_message: bool | None


# Options whose tensor has another name, and those that are the client's own.
_TENSORS = {
    "stop": wire.STOP_WORDS.name,
    "guide_type": wire.GUIDED_DECODING_GUIDE_TYPE.name,
    "guide": wire.GUIDED_DECODING_GUIDE.name,
    "n": wire.NUM_RETURN_SEQUENCES.name,
    "logprobs": wire.RETURN_LOG_PROBS.name,
}
_OURS = {"timeout_s", "max_retries", "request_id", "traceparent", "caller"}
# By tensor, what the caller calls it.
_NAMES = {tensor: option for option, tensor in _TENSORS.items()} | {
    wire.EMBEDDING_BIAS_WORDS.name: "word_bias",
    wire.EMBEDDING_BIAS_WEIGHTS.name: "word_bias",
    wire.TEXT_INPUT.name: "prompt",
}


def option_name(tensor: str) -> str:
    """What callers give the value of *tensor* by: the name of an option or of an argument."""
    return _NAMES.get(tensor, tensor)


_SEEDS = 2**64


def tensor_values(options: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """*options* by tensor name, without those that are for the client.

    Raises `TypeError`, as Python does for a keyword that a function does not have, for one that is not in *known*.
    """
    for name in options:
        if name not in known:
            meant = did_you_mean(name, known)
            raise TypeError(f"there is no option {name!r}" + (meant and f"; {meant}"))
    values = {_TENSORS.get(name, name): value for name, value in options.items() if name not in _OURS}
    seed = values.get(wire.SEED.name)
    if isinstance(seed, int) and -_SEEDS < seed < 0:
        values[wire.SEED.name] = seed + _SEEDS
    choice = values.get(wire.TOOL_CHOICE.name)
    if isinstance(choice, str) and choice not in ("auto", "none", "required"):
        values[wire.TOOL_CHOICE.name] = {"type": "function", "function": {"name": choice}}
    if isinstance(stop := values.get(wire.STOP_WORDS.name), str):
        values[wire.STOP_WORDS.name] = [stop]
    if isinstance(guide := values.get(wire.GUIDED_DECODING_GUIDE.name), Mapping):
        values[wire.GUIDED_DECODING_GUIDE.name] = bare_schema(guide)
    if (bias := values.pop("word_bias", None)) is not None:
        if not isinstance(bias, Mapping):
            raise InvalidRequest(f"word_bias is {bias!r:.100}; give a dict of biases by text", field="word_bias")
        values[wire.EMBEDDING_BIAS_WORDS.name] = list(bias.keys())
        values[wire.EMBEDDING_BIAS_WEIGHTS.name] = list(bias.values())
    return values
