"""A request becomes an answer: render, tokenise, generate, parse. Knows neither Triton nor the engine's kind."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from nemotron_client import wire
from nemotron_client.events import Event, Finish, Usage
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat import reasoning
from nemotron_triton.chat.answer import AnswerParser, AnswerRules, answer_rules
from nemotron_triton.chat.grammar import forced_call
from nemotron_triton.chat.render import Prompt, render_prompt
from nemotron_triton.chat.tokens import Detokenizer, TokenCodec
from nemotron_triton.engine.interface import Engine, Guide, Sampling
from nemotron_triton.engine.stream import TokenChunk, TokenLogprob, TokenStream
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.request import ChatRequest

_CLOSER = reasoning.CLOSER.encode()


@dataclass(frozen=True)
class Prepared:
    """A request whose prompt is tokens: what the engine gets, and the rules by which its answer is parsed."""

    request: ChatRequest
    prompt: str
    ids: list[int]
    rules: AnswerRules
    sampling: Sampling


@dataclass(frozen=True)
class Step:
    """The events that a chunk of tokens made certain, at the end a `Finish`, and these tokens.

    `ids` and `logprobs` are of every token, also of one without text; `logprobs` is empty when not asked for.
    `repairs`, in the last step, is the number of calls whose JSON had to be repaired.
    """

    events: list[Event]
    ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    repairs: int = 0


class Answering:
    """One loaded model: its profile and template, its tokens and its engine."""

    def __init__(self, bundle: Bundle, codec: TokenCodec, engine: Engine) -> None:
        self._profile = bundle.profile
        self._template = bundle.chat_template
        self._codec = codec
        self._engine = engine

    def prepare(self, request: ChatRequest) -> Prepared:
        """Render and tokenise *request*, in a time that grows with its prompt. Raises `RequestError`."""
        prompt = self._prompt(request)
        ids = self._codec.encode(prompt)
        profile, choice, parallel = self._profile, request.choice, request.parallel
        functions = request.conversation.functions if request.conversation else ()
        begins = reasoning.begins(profile.reasoning_format, thinking=request.thinking, prompt=prompt.text)
        rules = answer_rules(profile, functions, begins=begins, choice=choice, parallel=parallel)
        max_tokens = self._max_tokens(request, len(ids))
        guide = request.sampling.guide
        if choice.forced:
            grammar = forced_call(profile.tool_call_format, functions, choice, thinking=begins, parallel=parallel)
            guide = Guide(kind="grammar", text=grammar)
        elif guide:
            guide = dataclasses.replace(guide, thinking=begins)
        sampling = dataclasses.replace(request.sampling, max_tokens=max_tokens, guide=guide)
        return Prepared(request, prompt.text, ids, rules, sampling)

    async def answer(self, prepared: Prepared, sampling: Sampling, stream: TokenStream) -> AsyncGenerator[Step, None]:
        """Generate one answer with *sampling*; the very last event is `Finish`. Raises `EngineError`.

        The events do not depend on how the tokens were gathered into chunks. The engine stops when the reader leaves.
        """
        self._engine.generate(prepared.ids, sampling, stream)
        reading = _Reading(prepared, self._codec, stream)
        try:
            async for chunk in stream:
                step = reading.read(chunk)
                if step.events or step.logprobs:
                    yield step
                if reading.over:
                    return
        finally:
            stream.cancel()

    def _prompt(self, request: ChatRequest) -> Prompt:
        if request.conversation is None:
            # The caller rendered a finished prompt with a template of his own: its control tokens count.
            return Prompt(request.text, "\ufdd0", tuple(self._profile.control_tokens))
        options = dataclasses.replace(request.render, template=self._template)
        return render_prompt(self._profile, request.conversation, options)

    def _max_tokens(self, request: ChatRequest, prompt_tokens: int) -> int:
        """How many tokens the answer may have after a prompt of *prompt_tokens*."""
        context = self._engine.max_seq_len
        room = context - prompt_tokens
        if room < 1:
            raise RequestError(
                f"the prompt has {prompt_tokens} tokens and leaves no room to answer in a context of {context}; "
                "shorten it"
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


class _Reading:
    """Parses one answer and counts its tokens; `over` is set when it has its `Finish`."""

    def __init__(self, prepared: Prepared, codec: TokenCodec, stream: TokenStream) -> None:
        self.over = False
        self._stream = stream
        self._input_tokens = len(prepared.ids)
        request = prepared.request
        self._parser = AnswerParser(prepared.rules, request.stop_words, stream_calls=request.stream_tool_calls)
        self._detokenizer = Detokenizer(codec)
        self._each_token = bool(prepared.request.stop_words)
        self._output_tokens = self._reasoning_tokens = 0
        self._codec = codec
        self._tail = b""

    def read(self, chunk: TokenChunk) -> Step:
        """The events that *chunk* makes certain, and its tokens up to the end of the answer."""
        events: list[Event] = []
        count = 0
        for ids in self._pieces(chunk.ids):
            events += self._parser.feed(self._detokenizer.feed(ids))
            count += len(ids)
            self._reasoning_tokens += len(ids) * self._parser.in_reasoning
            if self._parser.stop_word is not None:
                break
        self._output_tokens += count
        reason: str | None = chunk.finish_reason
        if reason and self._parser.stop_word is None:
            events += self._parser.feed(self._detokenizer.finish())
            events += self._parser.finish(cut=reason == "length")
        if self._parser.stop_word is not None:
            reason = "stop"
        if reason:
            # A stop word behind a call does not take it back.
            events.append(self._finish("tool_calls" if reason == "stop" and self._parser.called_tools else reason))
        repairs = self._parser.repairs if self.over else 0
        return Step(events, chunk.ids[:count], chunk.logprobs[:count], repairs)

    def _finish(self, reason: str) -> Finish:
        self.over = True
        usage = Usage(
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            reasoning_tokens=self._reasoning_tokens,
            cached_tokens=self._stream.cached_tokens,
        )
        return Finish(reason=reason, usage=usage, problems=tuple(self._parser.problems))

    def _pieces(self, ids: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """*ids* in the pieces that counting needs: one token each where a stop word or thinking may begin or end."""
        if self._each_token or not (self._parser.past_reasoning or self._goes_on_thinking(ids)):
            yield from ((token_id,) for token_id in ids)
        else:
            yield ids

    def _goes_on_thinking(self, ids: tuple[int, ...]) -> bool:
        text = self._tail + b"".join(map(self._codec.bytes_of, ids))
        self._tail = text[-len(_CLOSER) :]
        return self._parser.in_reasoning and _CLOSER not in text
