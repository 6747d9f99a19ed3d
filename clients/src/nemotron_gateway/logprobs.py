"""Log probabilities in OpenAI's shapes."""

from __future__ import annotations

from typing import Any

from nemotron_client import Logprobs, TokenLogprob, TopLogprob

# What stands for a token of which none is known, or whose probability is 0: OpenAI's types want a number.
UNKNOWN = -9999.0


def content_logprobs(event: Logprobs) -> list[dict[str, Any]]:
    """The tokens of *event* as a chat completion has them; `part` says whether one is thinking, answer or call."""
    return [
        {**_token(token), "top_logprobs": [_token(top) for top in token.top], "part": token.part}
        for token in event.tokens
    ]


def known(logprob: float | None) -> float:
    """*logprob*, or the number that stands for none."""
    return UNKNOWN if logprob is None else logprob


def _token(token: TokenLogprob | TopLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": known(token.logprob), "bytes": list(token.bytes)}
