"""Token counts in OpenAI's shape."""

from __future__ import annotations

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
