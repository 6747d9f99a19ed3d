"""Requests to the demo model as values of tensors, and the requests that the server reads from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nemotron_client import wire
from nemotron_triton.chat.profiles import profile
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.request import ChatRequest, read_request
from nemotron_triton.serving.settings import Settings

PROFILE = profile("llama-nemotron-nano-4b-v1.1")
TOKENIZER = Path(__file__).parents[2] / "build" / "demo" / "checkpoint" / "tokenizer.json"
CODEC = TokenCodec(TOKENIZER)
DEFAULTS = Settings()
INPUTS = {tensor.name: tensor for tensor in wire.INPUTS}
OPENED = "Question: how many?\n<think>\n"
HI = json.dumps([{"role": "user", "content": "hi"}])
TOOLS = json.dumps([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])


def read(settings: Settings = DEFAULTS, /, **values: Any) -> ChatRequest:
    """The request that the server reads from values, with a conversation if they have no prompt."""
    named = values if "text_input" in values else {"messages": HI} | values
    return read_request({INPUTS[name]: value for name, value in named.items()}, PROFILE, settings, CODEC)


def refusal(settings: Settings = DEFAULTS, /, **values: Any) -> str:
    with pytest.raises(RequestError) as caught:
        read(settings, **values)
    return str(caught.value)
