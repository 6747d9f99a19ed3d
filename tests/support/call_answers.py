"""Answers of the demo model, in this process, to requests whose calls are guided."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from chat_requests import INPUTS
from nemotron_client.events import Event, Finish, ToolCall
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine
from nemotron_triton.engine.stream import TokenStream
from nemotron_triton.serving.answering import Answering
from nemotron_triton.serving.request import read_request
from nemotron_triton.serving.settings import Settings


class Answers:
    """Asks *engine*, of the demo model, as if it were that of the profile *model*."""

    def __init__(self, bundle: Bundle, engine: Engine, model: str) -> None:
        manifest = dataclasses.replace(bundle.manifest, profile=model)
        self._bundle = dataclasses.replace(bundle, manifest=manifest)
        self._codec = TokenCodec(bundle.tokenizer_path)
        self._answering = Answering(self._bundle, self._codec, engine)

    async def events(self, question: str, functions: list[dict[str, Any]], **values: Any) -> list[Event]:
        """The events of one answer; *values* are those of more tensors."""
        tools = [{"type": "function", "function": function} for function in functions]
        texts = {"messages": json.dumps([{"role": "user", "content": question}]), "tools": json.dumps(tools)}
        tensors = {INPUTS[name]: value for name, value in (texts | values).items()}
        prepared = self._answering.prepare(read_request(tensors, self._bundle.profile, Settings(), self._codec))
        steps = self._answering.answer(prepared, prepared.sampling, TokenStream())
        return [event async for step in steps for event in step.events]


def calls_of(events: list[Event]) -> tuple[list[ToolCall], Finish]:
    """The calls of an answer, and its end."""
    *_, finish = events
    assert isinstance(finish, Finish)
    return [event for event in events if isinstance(event, ToolCall)], finish
