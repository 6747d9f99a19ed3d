"""A request becomes an answer: render, tokenise, generate, take apart. Knows neither Triton nor the engine's kind."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator

from nemotron_client import wire
from nemotron_client.events import Event, Finish, Usage
from nemotron_triton.chat.answer import AnswerParser
from nemotron_triton.chat.profiles import Profile
from nemotron_triton.chat.render import Prompt, render_prompt
from nemotron_triton.chat.tokens import Detokenizer, TokenCodec
from nemotron_triton.engine.interface import Engine, Sampling
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.request import ChatRequest


class Cancelled(Exception):
    """The request was cancelled: nobody waits for the rest of its answer."""


class Answering:
    """One model, ready to answer."""

    def __init__(self, profile: Profile, codec: TokenCodec, engine: Engine) -> None:
        """Everything is loaded already; this only puts it together."""
        self._profile = profile
        self._codec = codec
        self._engine = engine

    async def answer(self, request: ChatRequest, request_id: str) -> AsyncGenerator[list[Event], None]:
        """The events of the answer, in lists that became certain together; the very last event is `Finish`.

        Raises `RequestError` before the first list, `EngineError` or `Cancelled` at any time.
        """
        ids = await asyncio.to_thread(self._encode, request)
        sampling = self._fit(request, len(ids))
        parser = AnswerParser(tools=request.has_tools)
        detokenizer = Detokenizer(self._codec)
        output_tokens = reasoning_tokens = 0
        async with contextlib.aclosing(self._engine.generate(ids, sampling, request_id)) as chunks:
            async for chunk in chunks:
                if chunk.finish_reason == "cancelled":
                    raise Cancelled
                events = parser.feed(detokenizer.feed(chunk.ids))
                output_tokens += len(chunk.ids)
                reasoning_tokens += len(chunk.ids) * parser.in_reasoning
                if chunk.finish_reason:
                    events += parser.feed(detokenizer.finish())
                    events += parser.finish()
                    called = parser.called_tools and chunk.finish_reason == "stop"
                    usage = Usage(input_tokens=len(ids), output_tokens=output_tokens, reasoning_tokens=reasoning_tokens)
                    events.append(Finish(reason="tool_calls" if called else chunk.finish_reason, usage=usage))
                if events:
                    yield events

    def _encode(self, request: ChatRequest) -> list[int]:
        if request.conversation is None:
            # A finished prompt is the caller's own template at work: its control tokens count.
            prompt = Prompt(request.text, "\ufdd0", self._profile.control_tokens)
        else:
            prompt = render_prompt(self._profile, request.conversation, thinking=request.thinking)
        return self._codec.encode(prompt)

    def _fit(self, request: ChatRequest, prompt_tokens: int) -> Sampling:
        """The request's sampling with as many tokens as it may have after a prompt of *prompt_tokens*."""
        context = self._engine.max_seq_len
        room = context - prompt_tokens
        if room < 1:
            raise RequestError(
                f"the prompt has {prompt_tokens} tokens and leaves no room to answer in a context of {context}; "
                "shorten it"
            )
        if request.max_tokens is not None and request.max_tokens > room:
            raise RequestError(
                f"{wire.MAX_TOKENS.name} is {request.max_tokens}; it must be between 1 and {room} "
                f"(a context of {context} less a prompt of {prompt_tokens})"
            )
        wanted = request.max_tokens or min(request.sampling.max_tokens, room)
        return dataclasses.replace(request.sampling, max_tokens=wanted)
