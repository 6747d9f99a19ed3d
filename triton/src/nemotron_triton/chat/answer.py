"""A model's text taken apart as it streams: thinking, answer, tool calls.

One state machine fed with text deltas; the whole-text result is the fold of the stream, so the two cannot differ. Each
character is looked at a bounded number of times. Knows the Llama Nemotron markers only, and reads call blocks that are
valid JSON; an unreadable or cut-off block is returned as the text it is.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

from nemotron_client.events import ContentDelta, Event, ReasoningDelta, ToolCall

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
CALL_OPEN, CALL_CLOSE = "<TOOLCALL>", "</TOOLCALL>"


class AnswerParser:
    """Feed it the text of one answer, in any pieces; it gives back events as soon as they are certain."""

    def __init__(self, *, tools: bool) -> None:
        """With *tools* false a call marker is ordinary text: nobody asked for calls."""
        self._state = self._before_thinking
        self._pending = ""
        self._space = ""
        self._tools = tools
        self._calls = 0
        self._block: _CallBlock | None = None

    @property
    def in_reasoning(self) -> bool:
        """Whether the text fed last was thinking."""
        return self._state == self._reasoning

    @property
    def called_tools(self) -> bool:
        """Whether a tool call was found."""
        return self._calls > 0

    def feed(self, text: str) -> list[Event]:
        """The events that *text* makes certain."""
        self._pending += text
        return list(self._run(last=False))

    def finish(self) -> list[Event]:
        """What was held back, once no more text will come; call it once."""
        return list(self._run(last=True))

    def _run(self, *, last: bool) -> Iterator[Event]:
        # Each state consumes from self._pending and says whether another should look at the rest.
        progress = True
        while progress:
            state = self._state
            yield from state(last)
            progress = self._state != state

    def _before_thinking(self, last: bool) -> Iterator[Event]:
        """Leading blanks, then perhaps `<think>`."""
        text = self._pending.lstrip()
        if text.startswith(THINK_OPEN):
            self._pending = text[len(THINK_OPEN) :].lstrip("\n")
            self._state = self._reasoning_start
        elif last or not THINK_OPEN.startswith(text):
            self._state = self._content
        return iter(())

    def _reasoning_start(self, last: bool) -> Iterator[Event]:
        """Blanks between the opener and the first thought."""
        self._pending = self._pending.lstrip()
        if self._pending or last:
            self._state = self._reasoning
        return iter(())

    def _reasoning(self, last: bool) -> Iterator[Event]:
        """Thinking, up to the first `</think>`; the blanks before it belong to the marker."""
        thought, closer, rest = self._pending.partition(THINK_CLOSE)
        if closer:
            self._pending, self._state = rest, self._content_start
            thought = thought.rstrip()
        else:
            thought, self._pending = _split_held(thought, THINK_CLOSE, last=last)
            thought, self._pending = thought.rstrip(), thought[len(thought.rstrip()) :] + self._pending
            if last:
                self._pending = ""
        if thought:
            yield ReasoningDelta(thought)

    def _content_start(self, last: bool) -> Iterator[Event]:
        """The newlines between the thinking and the answer."""
        self._pending = self._pending.lstrip("\n")
        if self._pending or last:
            self._state = self._content
        return iter(())

    def _content(self, last: bool) -> Iterator[Event]:
        """The answer. Blanks are held until something follows: at the end, or before a call, they are layout."""
        text, self._pending = self._pending, ""
        if self._tools:
            text, opener, rest = text.partition(CALL_OPEN)
            if opener:
                self._block, self._pending, self._state = _CallBlock(), rest, self._call
            else:
                text, self._pending = _split_held(text, CALL_OPEN, last=last)
        text = self._space + text
        visible = text.rstrip()
        self._space = text[len(visible) :]
        if visible:
            yield ContentDelta(visible)

    def _call(self, last: bool) -> Iterator[Event]:
        """Inside a call block."""
        assert self._block is not None
        text, self._pending = self._pending, ""
        end = self._block.feed(text)
        if end is None and not last:
            return
        body = self._block.body
        calls = _read_calls(body) if end is not None else None
        if calls is None:
            # Unreadable, or cut off: never run, never lost.
            yield ContentDelta(self._space + CALL_OPEN + body + (CALL_CLOSE if end is not None else ""))
            self._state = self._content
        else:
            for name, arguments in calls:
                yield ToolCall(index=self._calls, id=f"call_{secrets.token_hex(12)}", name=name, arguments=arguments)
                self._calls += 1
            self._state = self._content_start
        self._block, self._space = None, ""
        self._pending = "" if end is None else text[end:]


class _CallBlock:
    """Finds the end of a call block: `</TOOLCALL>` outside of JSON strings, each character looked at once."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._matched = 0
        self._in_string = False
        self._escaped = False

    @property
    def body(self) -> str:
        text = "".join(self._parts)
        return text.removesuffix(CALL_CLOSE) if self._matched == len(CALL_CLOSE) else text

    def feed(self, text: str) -> int | None:
        """The position in *text* after the closer, or None when it has not come yet."""
        for i, char in enumerate(text):
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == '"':
                    self._in_string = False
                continue
            self._matched = self._matched + 1 if char == CALL_CLOSE[self._matched] else int(char == CALL_CLOSE[0])
            if char == '"':
                self._in_string = True
            if self._matched == len(CALL_CLOSE):
                self._parts.append(text[: i + 1])
                return i + 1
        self._parts.append(text)
        return None


def _read_calls(body: str) -> list[tuple[str, dict[str, Any]]] | None:
    """The (name, arguments) of each call in a block, or None when the block cannot be read."""
    calls = []
    try:
        items = json.loads(body)
        for item in items if isinstance(items, list) else [items]:
            name, arguments = item["name"], item.get("arguments")
            if isinstance(arguments, str):
                arguments = json.loads(arguments)
            if arguments is None:
                arguments = {}
            if not isinstance(name, str) or not name or not isinstance(arguments, dict):
                return None
            # What cannot be sent on as JSON in UTF-8 was not readable: NaN, infinities, half of a surrogate pair.
            json.dumps([name, arguments], allow_nan=False, ensure_ascii=False).encode()
            calls.append((name, arguments))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return calls


def _split_held(text: str, marker: str, *, last: bool) -> tuple[str, str]:
    """*text* without the longest end that could begin *marker*, and that end; nothing is held at the *last* piece."""
    if not last:
        for size in range(min(len(marker) - 1, len(text)), 0, -1):
            if marker.startswith(text[-size:]):
                return text[:-size], text[-size:]
    return text, ""
