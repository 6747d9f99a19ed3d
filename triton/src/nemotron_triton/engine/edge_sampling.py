"""`Sampling` as a request of TensorRT Edge-LLM 0.11.0's native runtime, with the names of its binding.

The meaning of the numbers is from NVIDIA/TensorRT-Edge-LLM 0.11.0, `cpp/sampler/sampling.h`, and the wheel's
`experimental/server`.
"""

from __future__ import annotations

import secrets
from typing import Any

from nemotron_triton.engine.interface import Sampling
from nemotron_triton.engine.structural_tag import structural_tag
from nemotron_triton.engine.xgrammar import BEYOND_ASCII, guide_text
from nemotron_triton.errors import RequestError

_UNSUPPORTED = (
    "min_p",
    "min_tokens",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "no_repeat_ngram_size",
    "bad_ids",
)
CANNOT = {
    **dict.fromkeys(_UNSUPPORTED, "TensorRT Edge-LLM has no such rule"),
    "ignore_end": "TensorRT Edge-LLM can be told so for all requests only, by its environment",
    **BEYOND_ASCII,
}
_SEED_BITS = 63
_MAX_LOGPROBS = 50
_MAX_BIASED_TOKENS, _MAX_BIAS = 1024, 100.0
# Without a top_k, a top_p of 1 is refused, or greedy at temperature 1; this cuts off one token in a million.
_NO_TOP_P = 0.999999
_GUIDES = {"grammar": "EBNF", "json_schema": "JSON_SCHEMA", "regex": "REGEX"}


def generation_request(runtime: Any, prompt: str, sampling: Sampling, channel: Any) -> Any:
    """An `LLMGenerationRequest` of the module *runtime* for a rendered *prompt*; its tokens go to *channel*.

    Raises `RequestError` for what the runtime does not support.
    """
    message = runtime.Message("user", [runtime.MessageContent("text", prompt)])
    sequence = runtime.Request(messages=[message])
    sequence.sampling_seed = (
        secrets.randbits(_SEED_BITS) if sampling.seed is None else sampling.seed % (1 << _SEED_BITS)
    )
    bias = sampling.logit_bias
    if len(bias) > _MAX_BIASED_TOKENS or any(abs(value) > _MAX_BIAS for value in bias.values()):
        raise RequestError(
            f"logit_bias is for at most {_MAX_BIASED_TOKENS} tokens, between {-_MAX_BIAS:g} and {_MAX_BIAS:g} each, "
            "in TensorRT Edge-LLM"
        )
    sequence.logit_bias = dict(bias)
    if guide := sampling.guide:
        plain = runtime.GuidedDecodingParams(getattr(runtime.GuideType, _GUIDES[guide.kind]), guide_text(guide))
        # Of a structural tag, only its JSON is looked at.
        valid, reason = runtime.validate_guided_decoding_params(plain)
        if not valid:
            raise RequestError(f"TensorRT Edge-LLM refuses the {guide.kind}: {reason}")
        sequence.guided_decoding = (
            plain
            if guide.thinking == "none"
            else runtime.GuidedDecodingParams(runtime.GuideType.STRUCTURAL_TAG, structural_tag(guide))
        )
    request = runtime.LLMGenerationRequest()
    request.requests = [sequence]
    request.stream_channels = [channel]
    request.max_generate_length = sampling.max_tokens
    greedy = sampling.temperature == 0
    request.temperature, request.top_k = sampling.temperature, 1 if greedy else sampling.top_k
    top_p = sampling.top_p if sampling.top_p < 1 or sampling.top_k else _NO_TOP_P
    request.top_p = 1.0 if greedy else top_p
    if (sampling.logprobs or 0) > _MAX_LOGPROBS:
        raise RequestError(f"logprobs is {sampling.logprobs}; TensorRT Edge-LLM reports at most {_MAX_LOGPROBS}")
    request.num_logprobs = 0 if sampling.logprobs is None else max(1, sampling.logprobs)
    request.apply_chat_template = False
    request.add_generation_prompt = False
    request.skip_special_tokens = False
    return request
