"""The events of an answer as the chunks of a streamed chat completion, each prepared as bytes.

On the path of every token: what is the same in all chunks of a request is made once, and a chunk is that and its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from nemotron_client import ContentDelta, Event, Finish, Logprobs, ReasoningDelta, ToolCallDelta, Usage
from nemotron_gateway.finish import finish_fields
from nemotron_gateway.logprobs import content_logprobs
from nemotron_gateway.usage import openai_usage

_encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"


class ChatChunks:
    """Makes the chunks of one request; *include_usage* adds one with the usage at the end, which all others lack."""

    def __init__(self, completion_id: str, created: int, model: str, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        head = _encode({"id": completion_id, "object": "chat.completion.chunk", "created": created, "model": model})
        # Without the brace that closes it.
        self._head = b"data: " + head[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._plain = b'},"logprobs":null,"finish_reason":null}' + self._tail
        self._begun: dict[int, tuple[bytes, bytes]] = {}
        self._usages: dict[int, Usage] = {}

    def of(self, events: Sequence[Event]) -> bytes:
        """The chunks for the *events* of one response, all of one choice."""
        chunks: list[bytes] = []
        choice = events[0].choice
        if (prefixes := self._begun.get(choice)) is None:
            start = self._head + b'{"index":%d,"delta":{' % choice
            prefixes = self._begun[choice] = start, start + b'"content":'
            chunks.append(start + b'"role":"assistant","content":"","refusal":null' + self._plain)
        start, content = prefixes
        logprobs: Any = None
        for event in events:
            if isinstance(event, ContentDelta):
                delta = content + _encode(event.text)
            elif isinstance(event, ReasoningDelta):
                text = _encode(event.text)
                delta = start + b'"reasoning":' + text + b',"reasoning_content":' + text
            elif isinstance(event, ToolCallDelta):
                delta = start + b'"tool_calls":[' + _encode(_call(event)) + b"]"
            elif isinstance(event, Logprobs):
                logprobs = [*(logprobs or ()), *content_logprobs(event)]
                continue
            elif isinstance(event, Finish):
                if logprobs:
                    chunks.append(self._with_logprobs(start, logprobs))
                    logprobs = None
                chunks.append(self._finish(start, event))
                continue
            else:  # a whole call, whose pieces came before
                continue
            if logprobs:
                chunks.append(self._with_logprobs(delta, logprobs))
                logprobs = None
            else:
                chunks.append(delta + self._plain)
        if logprobs:
            chunks.append(self._with_logprobs(start, logprobs))
        return b"".join(chunks)

    def end(self) -> bytes:
        """What follows the last answer."""
        if not (self._include_usage and self._usages):
            return DONE
        usage = _encode(openai_usage(Usage.together(list(self._usages.values()))))
        return self._head + b'],"usage":' + usage + b"}\n\n" + DONE

    def _with_logprobs(self, delta: bytes, tokens: list[dict[str, Any]]) -> bytes:
        logprobs = _encode({"content": tokens, "refusal": None})
        return delta + b'},"logprobs":' + logprobs + b',"finish_reason":null}' + self._tail

    def _finish(self, start: bytes, event: Finish) -> bytes:
        self._usages[event.choice] = event.usage
        more = {"logprobs": None, **finish_fields(event)}
        return start + b"}," + _encode(more)[1:] + self._tail


def _call(event: ToolCallDelta) -> dict[str, Any]:
    if not event.id:
        return {"index": event.index, "function": {"arguments": event.arguments_json}}
    function = {"name": event.name, "arguments": event.arguments_json}
    return {"index": event.index, "id": event.id, "type": "function", "function": function}
