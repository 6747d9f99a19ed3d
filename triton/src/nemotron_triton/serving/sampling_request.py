"""How to generate, read from the tensors of a request, and the limits of every sampling parameter."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping

from nemotron_client import wire
from nemotron_triton.chat.gbnf import written_out
from nemotron_triton.chat.profiles import SamplingDefaults
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Guide, Sampling
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.values import MAX_INT32, Values, integer, json_value, number, sequence, within, words

MAX_CHOICES = 8
MAX_TOP_LOGPROBS = 20
# What every engine takes.
MAX_BIASED_TOKENS = 1024
# What messages call a guide for strict functions.
STRICT = f"strict: true in {wire.TOOLS}"
_SEEDS = 2**64
# Asks for nothing that an engine may lack.
_PLAIN = Sampling(max_tokens=1, temperature=1.0, top_p=1.0)
_NEVER_RETURNED = (wire.RETURN_CONTEXT_LOGITS, wire.RETURN_GENERATION_LOGITS, wire.RETURN_PERF_METRICS)
# The tensors that set fields of `Sampling` of another name.
_TENSORS: dict[str, wire.Tensor | str] = {
    "stop_ids": wire.STOP_TOKEN_IDS,
    "bad_ids": wire.BAD_WORDS,
    "ignore_end": wire.END_ID,
    "logit_bias": wire.EMBEDDING_BIAS_WORDS,
    "guide": wire.GUIDED_DECODING_GUIDE_TYPE,
    "logprobs": wire.RETURN_LOG_PROBS,
}


def read_sampling(values: Values, defaults: SamplingDefaults, codec: TokenCodec, guide: Guide | None) -> Sampling:
    """The sampling parameters among *values*; `RequestError` names the tensor, its value and what it may hold.

    `max_tokens` is that of the request, else of *defaults*.
    """
    # What tensorrt_llm_bls takes and no engine here does.
    for tensor in _NEVER_RETURNED:
        if values.get(tensor):
            raise RequestError(f"{tensor} is true; this server does not return them, leave it out")
    integer(values, wire.BEAM_WIDTH, 1, 1, 1)
    # Checked and ignored: it only ranks beams, and there is one.
    number(values, wire.LENGTH_PENALTY, 0.0, -100, 100)
    max_tokens = integer(values, wire.MAX_TOKENS, defaults.max_tokens, 1)
    end_id = values.get(wire.END_ID)
    stop_ids = [] if end_id in (None, -1) else [_token(wire.END_ID, end_id, codec, "-1, or ")]
    stop_ids += (_token(wire.STOP_TOKEN_IDS, token_id, codec) for token_id in sequence(values, wire.STOP_TOKEN_IDS))
    return Sampling(
        max_tokens=max_tokens,
        temperature=number(values, wire.TEMPERATURE, defaults.temperature, 0, 100),
        top_p=number(values, wire.TOP_P, defaults.top_p, 0, 1),
        # Elsewhere -1 is off, which is 0 here.
        top_k=max(0, integer(values, wire.TOP_K, 0, -1)),
        min_p=number(values, wire.MIN_P, 0.0, 0, 1),
        min_tokens=integer(values, wire.MIN_TOKENS, 0, 0, max_tokens if wire.MAX_TOKENS in values else MAX_INT32),
        # Elsewhere a seed may be negative.
        seed=values[wire.SEED] % _SEEDS if wire.SEED in values else None,
        repetition_penalty=number(values, wire.REPETITION_PENALTY, 1.0, 0.01, 10),
        presence_penalty=number(values, wire.PRESENCE_PENALTY, 0.0, -2, 2),
        frequency_penalty=number(values, wire.FREQUENCY_PENALTY, 0.0, -2, 2),
        no_repeat_ngram_size=integer(values, wire.NO_REPEAT_NGRAM_SIZE, 0, 0, 1024),
        ignore_end=end_id == -1,
        stop_ids=tuple(dict.fromkeys(stop_ids)),
        bad_ids=_bad_ids(values, codec),
        logit_bias=_logit_bias(values, codec),
        guide=guide,
        logprobs=_logprobs(values),
    )


def refuse_unsupported(sampling: Sampling, cannot: Mapping[str, str]) -> None:
    """`RequestError` for the first thing a request asks for that is in an engine's *cannot*."""
    used = {name for name, value in vars(sampling).items() if value != getattr(_PLAIN, name)}
    guide = sampling.guide
    if guide and guide.thinking != "none":
        used.add("guide.thinking")
    if guide and guide.kind == "grammar" and "guide.characters" in cannot and written_out(guide.text) is None:
        used.add("guide.characters")
    # A grammar is always that of tool calls.
    calls = {"guide": STRICT if guide.strict else wire.TOOL_CHOICE} if guide and guide.kind == "grammar" else {}
    tensors = _TENSORS | calls
    for name, reason in cannot.items():
        if name in used:
            field = name.partition(".")[0]
            raise RequestError(f"{tensors.get(field, field)} cannot be used with this model's engine: {reason}")


def sampling_of_choice(sampling: Sampling, index: int) -> Sampling:
    """How to generate answer *index* of several to one request: each has a seed of its own."""
    if sampling.seed is None or index == 0:
        return sampling
    return dataclasses.replace(sampling, seed=(sampling.seed + index) % _SEEDS)


def _token(tensor: wire.Tensor, token_id: int, codec: TokenCodec, or_else: str = "") -> int:
    if not 0 <= token_id < codec.vocab_size:
        raise RequestError(f"{tensor} is {token_id}; it must be {or_else}a token between 0 and {codec.vocab_size - 1}")
    return token_id


def _bad_ids(values: Values, codec: TokenCodec) -> tuple[tuple[int, ...], ...]:
    """The tokens of each bad word, at the beginning of a text and behind a blank, where they differ."""
    texts = (text for word in words(values, wire.BAD_WORDS) for text in (word, f" {word.lstrip(' ')}"))
    return tuple(dict.fromkeys(tuple(codec.encode_text(text)) for text in texts))


def _logit_bias(values: Values, codec: TokenCodec) -> dict[int, float]:
    biased, weights = sequence(values, wire.EMBEDDING_BIAS_WORDS), sequence(values, wire.EMBEDDING_BIAS_WEIGHTS)
    if len(biased) != len(weights):
        raise RequestError(
            f"{wire.EMBEDDING_BIAS_WORDS} has {len(biased)} entries and {wire.EMBEDDING_BIAS_WEIGHTS} "
            f"{len(weights)}; give one weight for each word"
        )
    words(values, wire.EMBEDDING_BIAS_WORDS)
    bias: dict[int, float] = {}
    for word, weight in zip(biased, weights, strict=True):
        within(wire.EMBEDDING_BIAS_WEIGHTS, weight, -100, 100)
        for token_id in codec.encode_text(word):
            bias[token_id] = bias.get(token_id, 0.0) + weight
    for token_id, weight in _bias_by_id(values, codec):
        bias[token_id] = bias.get(token_id, 0.0) + weight
    return bias


def _bias_by_id(values: Values, codec: TokenCodec) -> Iterator[tuple[int, float]]:
    """The tokens and biases in `logit_bias`, whose keys are numbers written as text."""
    entries = json_value(values, wire.LOGIT_BIAS)
    if entries is None:
        return
    if not isinstance(entries, Mapping):
        raise RequestError(f"{wire.LOGIT_BIAS} must be a JSON object of biases by token id")
    if len(entries) > MAX_BIASED_TOKENS:
        raise RequestError(f"{wire.LOGIT_BIAS} has {len(entries)} entries; it may have at most {MAX_BIASED_TOKENS}")
    for key, weight in entries.items():
        if not re.fullmatch(r"[0-9]{1,10}", key) or int(key) >= codec.vocab_size:
            raise RequestError(
                f"{wire.LOGIT_BIAS} has {key[:80]!r}; its keys must be token ids between 0 and {codec.vocab_size - 1}"
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise RequestError(f"{wire.LOGIT_BIAS}.{key} must be a number")
        yield int(key), within(f"{wire.LOGIT_BIAS}.{key}", weight, -100, 100)


def _logprobs(values: Values) -> int | None:
    """The number of alternatives to give with each token's log probability; None without log probabilities."""
    top = integer(values, wire.TOP_LOGPROBS, 0, 0, MAX_TOP_LOGPROBS)
    if not values.get(wire.RETURN_LOG_PROBS, top > 0):
        if top:
            raise RequestError(f"{wire.TOP_LOGPROBS} is {top}, but {wire.RETURN_LOG_PROBS} is false")
        return None
    return top
