"""A request becomes an answer: render, tokenise, generate, parse. Knows neither Triton nor the engine's kind."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemotron_client import wire
from nemotron_client.events import Event, Finish, Problem, ToolCall, Usage
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat import reasoning
from nemotron_triton.chat.answer import AnswerParser, AnswerRules, answer_rules
from nemotron_triton.chat.grammar import behind_thinking, call_grammar
from nemotron_triton.chat.render import Prompt, finished_prompt, render_prompt
from nemotron_triton.chat.tokens import Detokenizer, TokenCodec
from nemotron_triton.engine.interface import Engine, Guide, Sampling
from nemotron_triton.engine.stream import TokenChunk, TokenStream
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.arguments import misfits
from nemotron_triton.serving.request import ChatRequest
from nemotron_triton.serving.thinking_budget import BudgetedGeneration, Closer, ThinkingBudget, latest_tokens
from nemotron_triton.serving.token_parts import ScoredToken, TokenParts

_CLOSER = reasoning.CLOSER.encode()


@dataclass(frozen=True)
class Prepared:
    """A request whose prompt is tokens: what the engine gets, and the rules by which its answer is parsed.

    `budget` is None where the model may think as long as it likes.
    """

    request: ChatRequest
    prompt: str
    ids: list[int]
    rules: AnswerRules
    sampling: Sampling
    budget: ThinkingBudget | None = None


@dataclass(frozen=True)
class Step:
    """The events that a chunk of tokens made certain, at the end a `Finish`.

    `tokens`, where log probabilities are asked for, are those of which the part is certain now: every token in its
    turn, also one without text. `repairs`, in the last step, is the number of calls whose JSON had to be repaired.
    """

    events: list[Event]
    tokens: Sequence[ScoredToken] = ()
    repairs: int = 0


class Answering:
    """One loaded model: its profile and template, its tokens and its engine."""

    def __init__(self, bundle: Bundle, codec: TokenCodec, engine: Engine) -> None:
        self._profile = bundle.profile
        self._template = bundle.chat_template
        self._codec = codec
        self._engine = engine
        self._closer = Closer(codec, tuple(bundle.profile.control_tokens))

    def prepare(self, request: ChatRequest) -> Prepared:
        """Render and tokenise *request*, in a time that grows with its prompt. Raises `RequestError`."""
        prompt = self._prompt(request)
        ids = self._codec.encode(prompt)
        profile, choice, parallel = self._profile, request.choice, request.parallel
        functions = request.conversation.functions if request.conversation else ()
        begins = reasoning.begins(
            profile.reasoning_format, thinking=request.thinking, prompt=prompt.text, continued=prompt.continued
        )
        rules = answer_rules(profile, functions, begins=begins, prompt=prompt.text, choice=choice, parallel=parallel)
        max_tokens = self._max_tokens(request, len(ids))
        budget, guide = None, self._guide(request)
        if request.max_thinking_tokens is not None:
            most = (self._engine.max_prompt_tokens or self._engine.max_seq_len - 1) - len(ids)
            latest = latest_tokens(self._closer, max_tokens=max_tokens, max_prompt_tokens=most)
            if begins != "none" and latest < self._closer.opener_tokens(begins):
                return self.prepare(self._without_thinking(request))
            budget = ThinkingBudget(request.max_thinking_tokens, latest, self._closer, guide)
        guide = guide and _behind_thinking(guide, begins)
        sampling = dataclasses.replace(request.sampling, max_tokens=max_tokens, guide=guide)
        return Prepared(request, prompt.text, ids, rules, sampling, budget)

    async def answer(self, prepared: Prepared, sampling: Sampling, stream: TokenStream) -> AsyncGenerator[Step, None]:
        """Generate one answer with *sampling*; the very last event is `Finish`. Raises `EngineError`.

        The events do not depend on how the tokens were gathered into chunks. The engine stops when the reader leaves.
        """
        if budget := prepared.budget:
            rules = prepared.rules
            BudgetedGeneration(self._engine, self._codec, prepared.ids, rules, sampling, budget, stream).begin()
        else:
            self._engine.generate(prepared.ids, sampling, stream)
        reading = _Reading(prepared, self._codec, stream)
        calls: list[ToolCall] = []
        try:
            async for chunk in stream:
                step = reading.read(chunk)
                calls += (event for event in step.events if isinstance(event, ToolCall))
                if reading.over and calls:
                    step = await asyncio.to_thread(_with_misfits, step, calls, prepared.rules.functions or {})
                if step.events or step.tokens:
                    yield step
                if reading.over:
                    return
        finally:
            stream.cancel()

    def _without_thinking(self, request: ChatRequest) -> ChatRequest:
        """*request*, which has no room to think and to answer, so that its prompt switches thinking off."""
        if not (request.conversation and request.max_thinking_tokens):
            raise RequestError(
                "there is no room for the end of the thinking and an answer; raise "
                f"{wire.MAX_TOKENS}, shorten the prompt, or switch thinking off"
            )
        render = dataclasses.replace(request.render, thinking=False)
        return dataclasses.replace(request, thinking=False, render=render, max_thinking_tokens=0)

    def _guide(self, request: ChatRequest) -> Guide | None:
        """The guide of an answer without thinking."""
        functions = request.conversation.functions if request.conversation else ()
        tool_call_format, choice = self._profile.tool_call_format, request.choice
        if grammar := call_grammar(tool_call_format, functions, choice, parallel=request.parallel):
            return Guide(kind="grammar", text=grammar, strict=not choice.forced)
        return request.sampling.guide

    def _prompt(self, request: ChatRequest) -> Prompt:
        if request.conversation is None:
            return finished_prompt(self._profile, request.text)
        options = dataclasses.replace(request.render, template=self._template)
        return render_prompt(self._profile, request.conversation, options)

    def _max_tokens(self, request: ChatRequest, prompt_tokens: int) -> int:
        """How many tokens the answer may have after a prompt of *prompt_tokens*."""
        context = self._engine.max_seq_len
        room = context - prompt_tokens
        if room < 1:
            field = wire.MESSAGES if request.conversation else wire.TEXT_INPUT
            raise RequestError(
                f"{field}: the prompt has {prompt_tokens} tokens and leaves no room to answer in a context of "
                f"{context}; shorten it"
            )
        if request.max_tokens is not None and request.max_tokens > room:
            raise RequestError(
                f"{wire.MAX_TOKENS} is {request.max_tokens}; it must be between 1 and {room} "
                f"(a context of {context} less a prompt of {prompt_tokens})"
            )
        max_tokens = request.max_tokens or min(request.sampling.max_tokens, room)
        if request.sampling.min_tokens > max_tokens:
            raise RequestError(
                f"{wire.MIN_TOKENS} is {request.sampling.min_tokens}, and there is room for {max_tokens} tokens only"
            )
        return max_tokens


def _behind_thinking(guide: Guide, thinking: reasoning.Thinking) -> Guide:
    if guide.kind == "grammar":
        return dataclasses.replace(guide, text=behind_thinking(guide.text, thinking))
    return dataclasses.replace(guide, thinking=thinking)


def _with_misfits(step: Step, calls: list[ToolCall], parameters: Mapping[str, Any]) -> Step:
    """*step*, an answer's last, with the problems of *calls* whose arguments break their schemas."""
    *events, finish = step.events
    assert isinstance(finish, Finish)
    problems = (*finish.problems, *misfits(calls, parameters))
    return dataclasses.replace(step, events=[*events, dataclasses.replace(finish, problems=problems)])


class _Reading:
    """Parses one answer and counts its tokens; `over` is set when it has its `Finish`."""

    def __init__(self, prepared: Prepared, codec: TokenCodec, stream: TokenStream) -> None:
        self.over = False
        self._stream = stream
        self._input_tokens = len(prepared.ids)
        request = prepared.request
        self._parser = AnswerParser(prepared.rules, request.stop_words, stream_calls=request.stream_tool_calls)
        malformed_calls = request.conversation.malformed_calls if request.conversation else ()
        self._problems = [Problem(code="invalid_past_arguments", function=call.name) for call in malformed_calls]
        self._detokenizer = Detokenizer(codec)
        self._parts = TokenParts() if prepared.sampling.logprobs is not None else None
        self._each_token = bool(request.stop_words or self._parts)
        self._output_tokens = self._reasoning_tokens = 0
        self._codec = codec
        self._tail = prepared.rules.behind.encode()

    def read(self, chunk: TokenChunk) -> Step:
        """The events that *chunk* makes certain, and its tokens up to the end of the answer."""
        events: list[Event] = []
        tokens: list[ScoredToken] = []
        count = 0
        self._parser.closer_forced = self._stream.closer_forced
        for ids in self._pieces(chunk.ids):
            thought = self._parser.in_reasoning
            certain = self._parser.feed(self._detokenizer.feed(ids))
            events += certain
            thinking = self._parser.in_reasoning
            if self._parts:
                tokens += self._parts.add(ids[0], chunk.logprobs[count], certain, thinking=thinking or thought)
            count += len(ids)
            self._reasoning_tokens += len(ids) * thinking
            if self._parser.stop_word is not None:
                break
        self._output_tokens += count
        last: list[Event] = []
        reason: str | None = chunk.finish_reason
        if reason and self._parser.stop_word is None:
            last += self._parser.feed(self._detokenizer.finish())
            last += self._parser.finish(cut=reason == "length")
        if self._parser.stop_word is not None:
            reason = "stop"
        if reason:
            # A stop word behind a call does not take it back.
            reason = "tool_calls" if reason == "stop" and self._parser.called_tools else reason
            last.append(self._finish(reason, self._parser.stop_word or self._stream.stop_token_id))
        if self.over and self._parts:
            tokens += self._parts.finish(last)
        return Step([*events, *last], tokens, self._parser.repairs if self.over else 0)

    def _finish(self, reason: str, stop_reason: str | int | None) -> Finish:
        self.over = True
        usage = Usage(
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            reasoning_tokens=self._reasoning_tokens,
            cached_tokens=self._stream.cached_tokens,
        )
        problems = (*self._problems, *self._parser.problems)
        return Finish(
            reason=reason,
            usage=usage,
            problems=problems,
            stop_reason=stop_reason,
            thinking_cut=self._stream.closer_forced,
        )

    def _pieces(self, ids: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """*ids* in the pieces that counting needs: one token each where a stop word or thinking may begin or end."""
        if self._each_token or not (self._parser.past_reasoning or self._goes_on_thinking(ids)):
            yield from ((token_id,) for token_id in ids)
        else:
            yield ids

    def _goes_on_thinking(self, ids: tuple[int, ...]) -> bool:
        # Also of tokens that are read one by one, which may begin the closer.
        text = self._tail + b"".join(map(self._codec.bytes_of, ids))
        self._tail = text[-len(_CLOSER) :]
        return self._parser.in_reasoning and _CLOSER not in text
