"""Requests to the demo model as values of tensors, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nemotron_client import wire
from nemotron_triton.chat.profiles import profile
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.request import ChatRequest, read_request
from nemotron_triton.serving.settings import Settings
from nemotron_triton.serving.values import Values

PROFILE = profile("llama-nemotron-nano-4b-v1.1")
TOKENIZER = Path(__file__).parents[2] / "build" / "demo" / "checkpoint" / "tokenizer.json"
CODEC = TokenCodec(TOKENIZER)
DEFAULTS = Settings()
INPUTS = {tensor.name: tensor for tensor in wire.INPUTS}
HI = json.dumps([{"role": "user", "content": "hi"}])
TOOLS = json.dumps([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])


def read(settings: Settings = DEFAULTS, /, **values: Any) -> ChatRequest:
    """What becomes of a request, to a conversation if it names no prompt."""
    return read_request(tensors(values), PROFILE, settings, CODEC)


def tensors(values: Mapping[str, Any]) -> Values:
    """The *values* of a request by tensor, of one to a conversation if it names no prompt."""
    given = values if "text_input" in values else {"messages": HI} | dict(values)
    return {INPUTS[name]: value for name, value in given.items()}


def refusal(settings: Settings = DEFAULTS, /, **values: Any) -> str:
    with pytest.raises(RequestError) as caught:
        read(settings, **values)
    return str(caught.value)
