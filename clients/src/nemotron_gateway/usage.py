"""Token counts in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nemotron_client import Usage


def openai_usage(usage: Usage) -> dict[str, Any]:
    """The `usage` of a completion."""
    counts: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
    if usage.cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    return counts


def together(usages: Sequence[Usage]) -> Usage:
    """The usage of one prompt with several answers: the prompt once, and the tokens of all answers."""
    cached = [usage.cached_tokens for usage in usages if usage.cached_tokens is not None]
    return Usage(
        input_tokens=usages[0].input_tokens,
        output_tokens=sum(usage.output_tokens for usage in usages),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
        # The later ones find what the first has put there.
        cached_tokens=min(cached, default=None),
    )
