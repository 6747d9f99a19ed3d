"""The requests to llama.cpp for one answer, and its messages as tokens. Does not call llama.cpp.

An answer takes one request to llama.cpp, or several that continue each other: end tokens that are not allowed yet, and
tokens that would complete a forbidden sequence, need a logit bias, which is constant during a request.

Limits. While a character is incomplete, llama.cpp reports neither text nor ids, only a growing count; the ids are then
recovered from the bytes that follow. So text and count are exact; a recovered id may be another one with equal bytes,
and has no log probability. An answer that ends inside a character gets bytes that decode to one U+FFFD, as the lost
ones would. A grammar's answer is UTF-8 with as many characters as the grammar has; one that the model spells in too
many bytes, which llama.cpp's matcher takes, is U+FFFD, also where a pattern wants another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from nemotron_client import wire
from nemotron_triton.chat.gbnf import listed
from nemotron_triton.chat.reasoning import CLOSER
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.engine.llguidance import PROBE, llguidance
from nemotron_triton.engine.stream import FinishReason, TokenLogprob
from nemotron_triton.errors import EngineError, RequestError, ServingError

# A character has at most 4 bytes: with as many tokens past the limit, the last ones within it become known.
_CHARACTER_TOKENS = 4
_RANDOM_SEED = 0xFFFFFFFF  # llama.cpp's value for a random seed
_BAD_REQUEST = 400
_BROKEN = "\ufffd".encode()
# A character in more bytes than UTF-8 has for it, behind E0 or F0: one to llama.cpp's matcher of grammars, each byte
# broken to all others.
_LONG_SPELLING = re.compile(b"(?:%b){3,4}" % _BROKEN)
_CUT_CHARACTER = "\N{SLIGHTLY SMILING FACE}".encode()
_UNKNOWN = TokenLogprob(None)
_GUIDE_FAILURE = f"{wire.GUIDED_DECODING_GUIDE} cannot be followed: it is not valid, too complex, or nothing fits it"
_JSON_BEGINS = (*'{["-0123456789', "true", "false", "null")


# `TokenStream.put`.
Put: TypeAlias = Callable[[list[int], FinishReason | None, tuple[TokenLogprob, ...], int | None], None]


class Answer:
    """One answer: makes llama.cpp's requests for it and takes the messages about them. *end_ids* are the model's.

    `failure` is the error that ended the answer, `cached_tokens` how many tokens of the prompt were in the KV cache.
    """

    def __init__(
        self, codec: TokenCodec, end_ids: frozenset[int], prompt: Sequence[int], sampling: Sampling, put: Put
    ) -> None:
        self._codec = codec
        self._end_ids = (frozenset() if sampling.ignore_end else end_ids) | frozenset(sampling.stop_ids)
        self._model_end_ids = end_ids
        self._prompt = prompt
        self._sampling = sampling
        self._put = put
        # A single forbidden token takes a bias only; of a longer sequence, the last one must not follow the others.
        self._bad = [bad for bad in sampling.bad_ids if len(bad) > 1]
        guide = sampling.guide
        self._grammar = listed(guide.text) if guide is not None and guide.kind == "grammar" else None
        self._longest_bad = max(map(len, self._bad), default=0)
        self._ids: list[int] = []
        self._requests = 0
        # llama.cpp's count in the current request.
        self._predicted = 0
        # Tokens that would now complete a forbidden sequence.
        self._barred: frozenset[int] = frozenset()
        self.ended = False
        self.failure: ServingError | None = None
        self.cached_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """How many have been generated."""
        return len(self._ids)

    def request(self) -> dict[str, Any]:
        """The next request to send while the answer has not ended."""
        sampling = self._sampling
        self._predicted = 0
        self._requests += 1
        never = {ids[0] for ids in sampling.bad_ids if len(ids) == 1} | self._barred
        if self._too_short:
            never |= self._end_ids | self._model_end_ids
        request: dict[str, Any] = {
            "prompt": [*self._prompt, *self._ids],
            "stream": True,
            "return_tokens": True,
            # A message for every step of the prompt too, because a request can be stopped at a message only.
            "return_progress": True,
            "verbose": True,
            "n_predict": sampling.max_tokens - self.tokens + _CHARACTER_TOKENS,
            "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repetition_penalty,
            "repeat_last_n": len(self._prompt) + sampling.max_tokens,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "ignore_eos": sampling.ignore_end or self._too_short,
            "logit_bias": [*map(list, {**sampling.logit_bias, **dict.fromkeys(never, False)}.items())],
        }
        if sampling.seed is not None:
            request["seed"] = (sampling.seed + self._requests - 1) % _RANDOM_SEED
        if sampling.logprobs is not None:
            request["n_probs"] = max(1, sampling.logprobs)
        if sampling.guide is not None:
            request["grammar"] = self._grammar or llguidance(sampling.guide, self._codec)
        return request

    def probe(self) -> dict[str, Any] | None:
        """A request that shows whether llama.cpp can compile the guide; None where an error would."""
        guide = self._sampling.guide
        if guide is None or guide.kind == "grammar":
            return None
        return {
            "prompt": list(self._prompt[:1]),
            "stream": True,
            "return_tokens": True,
            "verbose": True,
            "n_predict": 1,
            "grammar": llguidance(guide, self._codec, probe=True),
        }

    def receive_probe(self, message: dict[str, Any]) -> bool:
        """Take a message about the probe; without the mark of the probe, the guide was not applied."""
        tokens = message.get("__verbose", {}).get("tokens", ())
        if tokens and not self._codec.bytes_of(tokens[0]).startswith(PROBE):
            self.failure = RequestError(_GUIDE_FAILURE)
        return False

    def receive(self, message: dict[str, Any]) -> bool:
        """Take one message; True to stop this request."""
        if error := message.get("error"):
            kind = RequestError if error.get("code") == _BAD_REQUEST else EngineError
            self.failure = kind(f"llama.cpp refused the request: {error.get('message', error)}")
            return True
        details = message["__verbose"]
        if progress := details.get("prompt_progress"):
            # Later requests of the answer find what the first one has put there.
            if self.cached_tokens is None:
                self.cached_tokens = progress["cache"]
            return False
        withheld = details["tokens_predicted"] - self._predicted - len(details["tokens"])
        self._predicted = details["tokens_predicted"]
        if not details["stop"]:
            ids = tuple(details["tokens"])
            if withheld:
                tail = b"".join(map(self._codec.bytes_of, ids))
                text = details["content"].encode()
                if self._grammar and _LONG_SPELLING.search(text):
                    ids = _spell(self._codec, _LONG_SPELLING.sub(_BROKEN, text), withheld + len(ids))
                else:
                    ids = _spell(self._codec, text.removesuffix(tail), withheld) + ids
            return self._take(ids, self._logprobs(len(ids), details))
        by_length = details["stop_type"] == "limit"
        # The end token is counted as predicted; it adds no text.
        cut = max(0, withheld - (not by_length))
        ids = _spell(self._codec, _CUT_CHARACTER[: min(cut, 3)], min(cut, 3))
        return self._send(ids, "length" if by_length else "stop", self._logprobs(len(ids), details))

    def _take(self, ids: tuple[int, ...], logprobs: tuple[TokenLogprob, ...]) -> bool:
        too_short, barred = self._too_short, self._barred
        for place, token_id in enumerate(ids):
            # llama.cpp guesses end tokens from their names; the checkpoint's are the right ones.
            if token_id in self._end_ids:
                return self._send(ids[:place], "stop", logprobs[:place], token_id)
            if token_id not in barred and self._completes_a_bad_sequence(ids[: place + 1]):
                self._send(ids[:place], None, logprobs[:place])
                self._barred = (barred if place == 0 else frozenset()) | {token_id}
                return True
        self._barred = frozenset()
        return self._send(ids, None, logprobs) or bool(barred) or too_short != self._too_short

    def _send(
        self,
        ids: tuple[int, ...],
        finish_reason: FinishReason | None,
        logprobs: tuple[TokenLogprob, ...],
        stop_token_id: int | None = None,
    ) -> bool:
        left = self._sampling.max_tokens - self.tokens
        ids = ids[:left]
        self._ids += ids
        if len(ids) == left and finish_reason != "stop":
            finish_reason = "length"
        if finish_reason and not self._follows_guide(cut=finish_reason == "length"):
            self.failure = RequestError(_GUIDE_FAILURE)
            return True
        self.ended = finish_reason is not None
        if ids or finish_reason:
            self._put(list(ids), finish_reason, logprobs[:left], stop_token_id)
        return self.ended

    @property
    def _too_short(self) -> bool:
        return self.tokens < self._sampling.min_tokens

    def _completes_a_bad_sequence(self, ids: tuple[int, ...]) -> bool:
        """Whether a forbidden sequence ends with *ids*, after those generated before."""
        if not self._bad:
            return False
        tail = (*self._ids[-self._longest_bad :], *ids)
        return any(tail[-len(bad) :] == bad for bad in self._bad)

    def _follows_guide(self, *, cut: bool) -> bool:
        """Whether the answer to a JSON schema is JSON, or begins like JSON if it was *cut*."""
        guide = self._sampling.guide
        if guide is None or guide.kind != "json_schema":
            return True
        text = b"".join(map(self._codec.bytes_of, self._ids)).decode("utf-8", "replace")
        if guide.thinking != "none":
            text = text.partition(CLOSER)[2].lstrip("\n")
        if cut:
            return len(text) < len("false") or text.startswith(_JSON_BEGINS)
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return False
        return True

    def _logprobs(self, count: int, details: dict[str, Any]) -> tuple[TokenLogprob, ...]:
        """One for each of the *count* ids of a message, which reports them of the last ids only."""
        if self._sampling.logprobs is None:
            return ()
        logprobs = [
            TokenLogprob(
                token["logprob"],
                tuple((top["id"], top["logprob"]) for top in token["top_logprobs"][: self._sampling.logprobs]),
            )
            for token in details.get("completion_probabilities", ())
        ]
        return (*[_UNKNOWN] * (count - len(logprobs)), *logprobs[max(0, len(logprobs) - count) :])


def _spell(codec: TokenCodec, text: bytes, count: int) -> tuple[int, ...]:
    """*count* token ids that spell *text*, longest tokens first; one per byte where that is impossible."""
    if count <= 0 or not text:
        return ()
    for size in range(len(text) - count + 1, 0, -1):
        if (token_id := codec.id_of(text[:size])) is not None:
            rest = _spell(codec, text[size:], count - 1)
            if len(rest) == count - 1 and (count > 1 or size == len(text)):
                return (token_id, *rest)
    return tuple(token_id for byte in text if (token_id := codec.id_of(bytes([byte]))) is not None)
