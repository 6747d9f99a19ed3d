"""Completions of finished prompts in OpenAI's shape, streamed and whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from nemotron_client import ContentDelta, Event, Finish, Logprobs, ReasoningDelta, Usage
from nemotron_gateway.chat_chunks import DONE
from nemotron_gateway.logprobs import known
from nemotron_gateway.usage import openai_usage

_encode = msgspec.json.Encoder().encode


class TextChunks:
    """Makes the chunks of one streamed request, of which each prompt has *n* answers."""

    def __init__(self, completion_id: str, created: int, model: str, *, include_usage: bool, n: int) -> None:
        self._include_usage = include_usage
        self._n = n
        self._head = {"id": completion_id, "object": "text_completion", "created": created, "model": model}
        self._offsets: dict[int, int] = {}
        self._usages: dict[int, Usage] = {}

    def of(self, events: Sequence[Event]) -> bytes:
        """The chunks for the *events* of one response, all of one choice."""
        choice = _Choice(self._offsets.get(events[0].choice, 0))
        for event in events:
            choice.add(event)
        self._offsets[events[0].choice] = choice.offset
        if choice.finish:
            self._usages[events[0].choice] = choice.finish.usage
        return self._chunk([choice.body(events[0].choice)], None)

    def end(self) -> bytes:
        """What follows the last answer."""
        if not self._include_usage:
            return DONE
        return self._chunk([], openai_usage(_usage(self._usages, self._n))) + DONE

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> bytes:
        body = {**self._head, "choices": choices}
        return b"data: " + _encode({**body, "usage": usage} if self._include_usage else body) + b"\n\n"


class TextAnswer:
    """A whole completion; each prompt has *n* answers."""

    def __init__(self, completion_id: str, created: int, model: str, *, n: int) -> None:
        self._head = {"id": completion_id, "object": "text_completion", "created": created, "model": model}
        self._n = n
        self._choices: dict[int, _Choice] = {}

    def add(self, events: Sequence[Event]) -> None:
        """Take the *events* of one response."""
        for event in events:
            self._choices.setdefault(event.choice, _Choice(0)).add(event)

    def body(self) -> dict[str, Any]:
        """The completion, when all events have come."""
        choices = [self._choices[index].body(index) for index in sorted(self._choices)]
        usages = {index: choice.finish.usage for index, choice in self._choices.items() if choice.finish}
        return {**self._head, "choices": choices, "usage": openai_usage(_usage(usages, self._n))}


class _Choice:
    """The text of one choice, or of a piece of it that begins at *offset* of its characters."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.finish: Finish | None = None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: dict[str, list[Any]] | None = None

    def add(self, event: Event) -> None:
        if isinstance(event, ContentDelta):
            self._text.append(event.text)
        elif isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)
        elif isinstance(event, Finish):
            self.finish = event
        elif isinstance(event, Logprobs):
            if self._logprobs is None:
                self._logprobs = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
            for token in event.tokens:
                self._logprobs["tokens"].append(token.token)
                self._logprobs["token_logprobs"].append(known(token.logprob))
                self._logprobs["top_logprobs"].append({top.token: known(top.logprob) for top in token.top})
                self._logprobs["text_offset"].append(self.offset)
                self.offset += len(token.token)

    def body(self, index: int) -> dict[str, Any]:
        body: dict[str, Any] = {"index": index, "text": "".join(self._text), "logprobs": self._logprobs}
        if self._reasoning:
            body["reasoning"] = "".join(self._reasoning)
        finish = self.finish
        return body | {
            "finish_reason": finish.reason if finish else None,
            **({"stop_reason": finish.stop_reason} if finish else {}),
        }


def _usage(usages: dict[int, Usage], n: int) -> Usage:
    """The usage of all answers; those to one prompt share it."""
    prompts = [Usage.together([usages[place + answer] for answer in range(n)]) for place in range(0, len(usages), n)]
    cached = [usage.cached_tokens for usage in prompts if usage.cached_tokens is not None]
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in prompts),
        output_tokens=sum(usage.output_tokens for usage in prompts),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in prompts),
        cached_tokens=sum(cached) if cached else None,
    )
