"""One call of a tool, from the pieces of its arguments."""

from __future__ import annotations

import json
import re

from nemotron_client.events import ToolCall, ToolCallDelta

_OUTSIDE_OF_TEXT = re.compile(r'[\[\]{}"]')
_INSIDE_OF_TEXT = re.compile(r'[\\"]')


class CallReader:
    """Takes the pieces; what is read of each is only what it adds, however many there are."""

    def __init__(self) -> None:
        self._pieces: list[ToolCallDelta] = []
        self._depth = 0
        self._in_text = False
        self._escaped = False
        self.whole = False

    def add(self, piece: ToolCallDelta) -> ToolCall | None:
        """The call, where *piece* ends its object, array or text; `ValueError` when it was whole before."""
        if self.whole:
            if piece.arguments_json.strip():
                raise ValueError(f"more arguments for call {piece.index}, which was whole")
            return None
        self._pieces.append(piece)
        return self.end() if self._ends(piece.arguments_json) else None

    def end(self) -> ToolCall | None:
        """The call whose pieces have all come, if they are JSON and it was not whole before; `ValueError` without id.

        So is a number or a word known, which a further piece could have gone on with.
        """
        if self.whole:
            return None
        arguments_json = "".join([piece.arguments_json for piece in self._pieces])
        try:
            json.loads(arguments_json)
        except json.JSONDecodeError:
            return None
        self.whole = True
        first = self._pieces[0]
        if not first.id:
            raise ValueError(f"call {first.index} has no id")
        return ToolCall(
            index=first.index, id=first.id, name=first.name, arguments_json=arguments_json, choice=first.choice
        )

    def _ends(self, text: str) -> bool:
        """Whether the JSON value ends within *text*, the next piece of it."""
        at, ended = 0, False
        if self._escaped and text:
            at, self._escaped = 1, False
        while match := (_INSIDE_OF_TEXT if self._in_text else _OUTSIDE_OF_TEXT).search(text, at):
            at = match.end()
            mark = match[0]
            if mark == "\\":
                self._escaped = at == len(text)
                at += 1
            elif mark == '"':
                self._in_text = not self._in_text
            else:
                self._depth += 1 if mark in "[{" else -1
            ended = not self._in_text and self._depth == 0
        return ended
