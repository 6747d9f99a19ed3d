"""A request becomes an answer: render, tokenise, generate, take apart. Knows neither Triton nor the engine's kind."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

from nemotron_client import wire
from nemotron_client.events import Event, Finish, Usage
from nemotron_triton.chat.answer import AnswerParser, answer_rules
from nemotron_triton.chat.grammar import forced_call
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

    def __init__(self, profile: Profile, template: str | None, codec: TokenCodec, engine: Engine) -> None:
        """Everything is loaded already; this only puts it together. *template* replaces the profile's own."""
        self._profile = profile
        self._template = template
        self._codec = codec
        self._engine = engine

    async def answer(self, request: ChatRequest, request_id: str) -> AsyncGenerator[list[Event], None]:
        """The events of the answer, in lists that became certain together; the very last event is `Finish`.

        Raises `RequestError` before the first list, `EngineError` or `Cancelled` at any time.
        """
        prompt, ids = await asyncio.to_thread(self._encode, request)
        functions = request.conversation.functions if request.conversation else ()
        rules = answer_rules(
            self._profile,
            functions,
            in_thinking=prompt.opens_thinking,
            choice=request.choice,
            parallel=request.parallel,
        )
        sampling = self._fit(request, len(ids))
        if request.choice.forced:
            sampling = dataclasses.replace(sampling, grammar=self._forced(request, functions, prompt))
        parser = AnswerParser(rules)
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
                    events += parser.finish(cut=chunk.finish_reason == "length")
                    called = parser.called_tools and chunk.finish_reason == "stop"
                    reason = "tool_calls" if called else chunk.finish_reason
                    usage = Usage(input_tokens=len(ids), output_tokens=output_tokens, reasoning_tokens=reasoning_tokens)
                    events.append(Finish(reason=reason, usage=usage, problems=tuple(parser.problems)))
                if events:
                    yield events

    def _encode(self, request: ChatRequest) -> tuple[Prompt, list[int]]:
        if request.conversation is None:
            # A finished prompt is the caller's own template at work: its control tokens count.
            prompt = Prompt(request.text, "\ufdd0", tuple(self._profile.control_tokens))
        else:
            options = dataclasses.replace(request.render, template=self._template)
            prompt = render_prompt(self._profile, request.conversation, options)
        return prompt, self._codec.encode(prompt)

    def _forced(self, request: ChatRequest, functions: Sequence[Mapping[str, Any]], prompt: Prompt) -> str:
        opened: Literal["opened", "model opens"] = "opened" if prompt.opens_thinking else "model opens"
        return forced_call(
            self._profile.tool_call_format,
            functions,
            request.choice,
            thinking=opened if request.thinking else "none",
            parallel=request.parallel,
        )

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
