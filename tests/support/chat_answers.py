"""Answers to requests, in this process, folded from the steps in which serving reads them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from nemotron_client.events import ContentDelta, Finish, ReasoningDelta, ToolCall
from nemotron_triton.engine.stream import TokenLogprob, TokenStream
from nemotron_triton.serving.answering import Answering
from nemotron_triton.serving.request import ChatRequest


@dataclass
class Read:
    """One answer as it was read."""

    reasoning: str = ""
    content: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    finish: Finish | None = None
    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def tokens(self) -> tuple[int, int]:
        """Of the answer, and of its thinking."""
        assert self.finish
        return self.finish.usage.output_tokens, self.finish.usage.reasoning_tokens


async def read_answer(answering: Answering, request: ChatRequest, *, pause: Callable[[], float] | None = None) -> Read:
    """Read the answer to *request* to its end; *pause* is for how long its tokens may gather."""
    prepared = answering.prepare(request)
    answer, stream = Read(), TokenStream(pause)
    async with contextlib.aclosing(answering.answer(prepared, prepared.sampling, stream)) as steps:
        async for step in steps:
            answer.ids += [token.id for token in step.tokens]
            answer.logprobs += [token.logprob for token in step.tokens]
            for event in step.events:
                if isinstance(event, ReasoningDelta):
                    answer.reasoning += event.text
                elif isinstance(event, ContentDelta):
                    answer.content += event.text
                elif isinstance(event, ToolCall):
                    answer.calls.append(event)
                elif isinstance(event, Finish):
                    answer.finish = event
    assert stream.tokens == answer.tokens[0]
    return answer
