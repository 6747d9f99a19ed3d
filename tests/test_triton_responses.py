"""The tensors of a response."""

from __future__ import annotations

import json
import math

from nemotron_client import wire
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.stream import TokenLogprob
from nemotron_triton.serving.responses import logprob_tensors
from nemotron_triton.serving.token_parts import ScoredToken


def test_a_token_that_could_not_come_has_no_log_probability_in_json(bundle: Bundle) -> None:
    codec = TokenCodec(bundle.tokenizer_path)
    certain = TokenLogprob(-math.inf, ((1, -0.5), (2, -math.inf)))
    tokens = [ScoredToken(2, certain, "reasoning"), ScoredToken(3, TokenLogprob(None), "content")]

    tensors = logprob_tensors(codec, tokens, -1.0)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    rows = json.loads(tensors[wire.LOGPROBS], parse_constant=refuse)
    assert [row["logprob"] for row in rows] == [None, None]
    assert [row["logprob"] for row in rows[0]["top_logprobs"]] == [-0.5, None]
    assert [row["part"] for row in rows] == ["reasoning", "content"]
    assert tensors[wire.OUTPUT_LOG_PROBS][0][0] == -math.inf
    assert tensors[wire.CUM_LOG_PROBS] == [-math.inf]
