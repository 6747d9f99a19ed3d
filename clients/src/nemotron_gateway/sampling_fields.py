"""The fields of a request that say how to generate: those of OpenAI's API, and those that other servers added."""

from __future__ import annotations

from typing import Any

import msgspec

from nemotron_client import Json
from nemotron_gateway.json_body import NULL, is_null

_SEEDS = 2**64


class StreamOptions(msgspec.Struct, kw_only=True):
    """What a stream holds beside the answer."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


class StructuredOutputs(msgspec.Struct, kw_only=True):
    """What the text must look like, as vLLM has it."""

    json: msgspec.Raw = NULL
    regex: str | None = None
    json_object: bool | None = None


class SamplingFields(msgspec.Struct, kw_only=True):
    """The fields that chat completions and completions share."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    # Beyond OpenAI's.
    top_k: int | None = None
    min_p: float | None = None
    min_tokens: int | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    stop_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    ignore_eos: bool | None = None
    priority: int | None = None
    guided_json: msgspec.Raw = NULL
    guided_regex: str | None = None
    structured_outputs: StructuredOutputs | None = None

    def options(self) -> dict[str, Any]:
        """The client's options for them; None is left out by the client."""
        return {
            "max_tokens": self.max_tokens,
            # OpenAI's is an upper bound.
            "clamp_max_tokens": True,
            "n": self.n,
            "temperature": self.temperature,
            "top_p": self.top_p,
            # -1 is off in vLLM.
            "top_k": 0 if self.top_k == -1 else self.top_k,
            "min_p": self.min_p,
            "seed": None if self.seed is None else self.seed % _SEEDS,
            # An empty list is none.
            "stop": self.stop or None,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repetition_penalty": self.repetition_penalty,
            "no_repeat_ngram_size": self.no_repeat_ngram_size,
            "min_tokens": self.min_tokens,
            "stop_token_ids": self.stop_token_ids or None,
            "bad_words": self.bad_words or None,
            "logit_bias": self.logit_bias or None,
            "end_id": -1 if self.ignore_eos else None,
            "priority": self.priority,
        }

    def guide(self) -> dict[str, Any]:
        """What the text must look like, where that is not said by `response_format`."""
        outputs = self.structured_outputs or StructuredOutputs()
        schema = outputs.json if is_null(self.guided_json) else self.guided_json
        regex = self.guided_regex or outputs.regex
        if not is_null(schema):
            return {"guide_type": "json_schema", "guide": Json(bytes(schema))}
        if regex is not None:
            return {"guide_type": "regex", "guide": regex}
        return {"guide_type": "json"} if outputs.json_object else {}
