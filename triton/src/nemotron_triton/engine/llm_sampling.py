"""`Sampling` as `SamplingParams` of TensorRT-LLM 1.2.1's LLM API; differences of a backend are in its kind's module.

Imports TensorRT-LLM not at all, and torch only for a logit bias.
"""

from __future__ import annotations

import importlib
from typing import Any

from nemotron_triton.bundle import Manifest
from nemotron_triton.engine.interface import Guide, Sampling
from nemotron_triton.engine.least_tokens import LeastTokens
from nemotron_triton.engine.structural_tag import structural_tag
from nemotron_triton.engine.xgrammar import guide_text
from nemotron_triton.errors import RequestError

_GUIDE_FIELDS = {"grammar": "grammar", "json_schema": "json", "regex": "regex"}


def end_ids(sampling: Sampling, manifest: Manifest) -> frozenset[int]:
    """The tokens that end an answer."""
    return frozenset(sampling.stop_ids) | (frozenset() if sampling.ignore_end else frozenset(manifest.end_ids))


def sampling_params(
    api: Any,
    sampling: Sampling,
    manifest: Manifest,
    *,
    prompt_tokens: int,
    seed: int | None = None,
    perf_metrics: bool = False,
) -> Any:
    """A `SamplingParams` of *api*, the module `tensorrt_llm.llmapi`; `RequestError` for what it does not support.

    With *perf_metrics*, the last response of the request has its metrics.
    With an end token, the LLM API does not use its tokenizer: neither for end tokens nor to encode words.
    """
    first, *others = manifest.end_ids
    stops = [*([] if sampling.ignore_end else others), *sampling.stop_ids]
    single = [ids[0] for ids in sampling.bad_ids if len(ids) == 1]
    guide, greedy = sampling.guide, sampling.temperature == 0
    params = api.SamplingParams(
        max_tokens=sampling.max_tokens,
        end_id=first,
        pad_id=first,
        ignore_eos=sampling.ignore_end,
        stop_token_ids=stops or None,
        bad_token_ids=single or None,
        embedding_bias=_embedding_bias(sampling, manifest) if sampling.logit_bias else None,
        seed=seed,
        # A temperature of 0 is out of range in the C++ decoder; a top_k of 1 is greedy in both backends. Without a
        # top_p and a top_k the LLM API decodes greedily, whatever the temperature.
        temperature=None if greedy else sampling.temperature,
        top_k=1 if greedy else sampling.top_k,
        top_p=None if greedy else sampling.top_p,
        min_p=None if greedy else sampling.min_p or None,
        repetition_penalty=None if sampling.repetition_penalty == 1 else sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty or None,
        frequency_penalty=sampling.frequency_penalty or None,
        no_repeat_ngram_size=sampling.no_repeat_ngram_size or None,
        guided_decoding=api.GuidedDecodingParams(**_guide_fields(guide)) if guide else None,
        # Its own `min_tokens` does not hold back every end token.
        logits_processor=LeastTokens(prompt_tokens, sampling.min_tokens, end_ids(sampling, manifest))
        if sampling.min_tokens
        else None,
        # 0 means no log probabilities to both backends; the surplus alternative is dropped from the result.
        logprobs=None if sampling.logprobs is None else max(1, sampling.logprobs),
        exclude_input_from_output=True,
        detokenize=False,
        add_special_tokens=False,
        return_perf_metrics=perf_metrics,
    )
    if several := [list(ids) for ids in sampling.bad_ids if len(ids) > 1]:
        # The public field takes words as text, to be encoded by a tokenizer; the ids are stored here.
        params.bad = []
        params._bad_word_ids = several
    return params


def _guide_fields(guide: Guide) -> dict[str, str]:
    if guide.thinking == "none":
        return {_GUIDE_FIELDS[guide.kind]: guide_text(guide)}
    return {"structural_tag": structural_tag(guide)}


def _embedding_bias(sampling: Sampling, manifest: Manifest) -> Any:
    size: int = manifest.plan["architecture"]["vocab_size"]
    bias = [0.0] * size
    for token_id, value in sampling.logit_bias.items():
        if not 0 <= token_id < size:
            raise RequestError(f"logit_bias names token {token_id}; the model's tokens are 0 to {size - 1}")
        bias[token_id] = value
    torch = importlib.import_module("torch")
    return torch.tensor(bias, dtype=torch.float32)
