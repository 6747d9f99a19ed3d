"""A request becomes an answer: render, tokenise, generate, take apart. Knows neither Triton nor the engine's kind."""

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
from nemotron_triton.chat.stop_words import StopWords
from nemotron_triton.chat.tokens import Detokenizer, TokenCodec
from nemotron_triton.engine.interface import Engine, Guide, Sampling
from nemotron_triton.engine.stream import TokenChunk, TokenLogprob, TokenStream
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.request import ChatRequest

_CLOSER = reasoning.CLOSER.encode()


@dataclass(frozen=True)
class Prepared:
    """A request whose prompt is tokens: what the engine is asked, and how its answer is to be read."""

    request: ChatRequest
    prompt: str
    ids: list[int]
    rules: AnswerRules
    sampling: Sampling


@dataclass(frozen=True)
class Step:
    """What became certain together: `events`, the last one a `Finish` at the end, and the tokens that came with them.

    `ids` and `logprobs` are of every token, whatever becomes of its text; `logprobs` is empty when not asked for.
    `repairs` comes with the last step: calls whose JSON had to be repaired.
    """

    events: list[Event]
    ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    repairs: int = 0


class Answering:
    """One model, ready to answer."""

    def __init__(self, bundle: Bundle, codec: TokenCodec, engine: Engine) -> None:
        """Everything is loaded already; this only puts it together."""
        self._profile = bundle.profile
        self._template = bundle.chat_template
        self._codec = codec
        self._engine = engine

    def prepare(self, request: ChatRequest) -> Prepared:
        """Render and tokenise, which takes time that grows with the prompt. Raises `RequestError`."""
        prompt = self._prompt(request)
        ids = self._codec.encode(prompt)
        functions = request.conversation.functions if request.conversation else ()
        rules = answer_rules(
            self._profile,
            functions,
            begins=reasoning.begins(self._profile.reasoning_format, thinking=request.thinking, prompt=prompt.text),
            choice=request.choice,
            parallel=request.parallel,
        )
        sampling = self._fit(request, len(ids))
        guide = sampling.guide
        if request.choice.forced:
            grammar = forced_call(
                self._profile.tool_call_format,
                functions,
                request.choice,
                thinking=rules.begins,
                parallel=request.parallel,
            )
            guide = Guide(kind="grammar", text=grammar)
        elif guide:
            guide = dataclasses.replace(guide, thinking=rules.begins)
        sampling = dataclasses.replace(sampling, guide=guide)
        return Prepared(request, prompt.text, ids, rules, sampling)

    async def answer(self, prepared: Prepared, sampling: Sampling, stream: TokenStream) -> AsyncGenerator[Step, None]:
        """Generate one answer with *sampling*; the very last event is `Finish`. Raises `EngineError`.

        What it gives does not depend on how the tokens were gathered on their way. The engine stops when the reader
        leaves.
        """
        self._engine.generate(prepared.ids, sampling, stream)
        reading = _Reading(prepared, self._codec)
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
            # A finished prompt is the caller's own template at work: its control tokens count.
            return Prompt(request.text, "\ufdd0", tuple(self._profile.control_tokens))
        options = dataclasses.replace(request.render, template=self._template)
        return render_prompt(self._profile, request.conversation, options)

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
                f"{wire.MAX_TOKENS} is {request.max_tokens}; it must be between 1 and {room} "
                f"(a context of {context} less a prompt of {prompt_tokens})"
            )
        wanted = request.max_tokens or min(request.sampling.max_tokens, room)
        if request.sampling.min_tokens > wanted:
            raise RequestError(
                f"{wire.MIN_TOKENS} is {request.sampling.min_tokens}, and there is room for {wanted} tokens only"
            )
        return dataclasses.replace(request.sampling, max_tokens=wanted)


class _Reading:
    """Takes one answer apart, and counts."""

    def __init__(self, prepared: Prepared, codec: TokenCodec) -> None:
        self.over = False
        self._input_tokens = len(prepared.ids)
        self._parser = AnswerParser(prepared.rules)
        self._detokenizer = Detokenizer(codec)
        self._stop_words = StopWords(prepared.request.stop_words)
        self._each_token = bool(prepared.request.stop_words)
        self._output_tokens = self._reasoning_tokens = 0
        self._codec = codec
        self._tail = b""

    def read(self, chunk: TokenChunk) -> Step:
        """What *chunk* makes certain; `over` is set when the answer is."""
        events: list[Event] = []
        taken = 0
        for ids in self._pieces(chunk.ids):
            events += self._stop_words.filter(self._parser.feed(self._detokenizer.feed(ids)))
            taken += len(ids)
            self._reasoning_tokens += len(ids) * self._parser.in_reasoning
            if self._stop_words.found:
                break
        self._output_tokens += taken
        if self._stop_words.found:
            events.append(self._finish("stop"))
        elif chunk.finish_reason:
            cut = chunk.finish_reason == "length"
            rest = [*self._parser.feed(self._detokenizer.finish()), *self._parser.finish(cut=cut)]
            events += [*self._stop_words.filter(rest), *self._stop_words.finish()]
            # A stop word may have become whole only now, and then no call was the end of it.
            ended = "stop" if self._stop_words.found else chunk.finish_reason
            called = self._parser.called_tools and not self._stop_words.found and ended == "stop"
            events.append(self._finish("tool_calls" if called else ended))
        repairs = self._parser.repairs if self.over else 0
        return Step(events, chunk.ids[:taken], chunk.logprobs[:taken], repairs)

    def _finish(self, reason: str) -> Finish:
        self.over = True
        usage = Usage(
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            reasoning_tokens=self._reasoning_tokens,
        )
        return Finish(reason=reason, usage=usage, problems=tuple(self._parser.problems))

    def _pieces(self, ids: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """*ids* cut as finely as counting needs: each by itself where a stop word, or thinking, may begin or end."""
        if self._each_token or not (self._parser.past_reasoning or self._goes_on_thinking(ids)):
            yield from ((each,) for each in ids)
        else:
            yield ids

    def _goes_on_thinking(self, ids: tuple[int, ...]) -> bool:
        if not self._parser.in_reasoning:
            return False
        text = self._tail + b"".join(map(self._codec.bytes_of, ids))
        self._tail = text[-len(_CLOSER) :]
        return _CLOSER not in text
