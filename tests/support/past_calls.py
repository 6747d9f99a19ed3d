"""Messages of a conversation with tool calls, and the prompts they become."""

from __future__ import annotations

from typing import Any

from nemotron_triton.chat.conversation import read_conversation
from nemotron_triton.chat.profiles import DEFAULT_PROFILE, profile
from nemotron_triton.chat.render import RenderOptions, render_prompt

ASK = {"role": "user", "content": "Go on."}


def asked(*calls: str | None, arguments: Any = "{}") -> dict[str, Any]:
    """An assistant's message with a call of each id, the function named as the id is."""
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": call, "function": {"name": f"f_{call}", "arguments": arguments}} for call in calls],
    }


def result(content: str, call: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": call}


def prompt(*messages: dict[str, Any], model: str = DEFAULT_PROFILE, options: RenderOptions = RenderOptions()) -> str:
    return render_prompt(profile(model), read_conversation(messages), options).text
