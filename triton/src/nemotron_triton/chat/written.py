"""The arguments of a call as far as the model has written them: JSON that can be sent before it is whole.

The brace that ends it is left out, so that JSON which never becomes whole shows it.
"""

from __future__ import annotations

import json

from nemotron_triton.chat.xml_value import Value, is_layout


class Written:
    """A reader adds to `json`, of which the pieces from `start` to `end` are the arguments, and sets `string`.

    `string` is a value that is being read and will be a JSON string, the next piece.
    """

    def __init__(self) -> None:
        self.json: list[str] = []
        self.start = 0
        self.end: int | None = None
        self.string: Value | None = None
        self.sent = 0
        self._pieces = 0
        self._ahead = 0
        self._string_pieces = 0
        self._held = ""

    def new(self) -> str:
        """What is certain, and was not returned before; `sent` counts its characters."""
        pieces = self.json[self.start + self._pieces : self.end]
        if pieces:
            self._pieces += len(pieces)
            pieces[0] = pieces[0][self._ahead :]
            self._ahead = self._string_pieces = 0
            self._held = ""
        if self.string:
            text = self._of_string(self.string)
            self._ahead += len(text)
            pieces.append(text)
        new = "".join(pieces)
        self.sent += len(new)
        return new

    def _of_string(self, value: Value) -> str:
        """The next characters of the JSON string, without the line break on each side of the value."""
        pieces = value.pieces[self._string_pieces : value.sure]
        text = self._held + "".join(pieces)
        quote = ""
        if not self._ahead:
            if is_layout(text):
                return ""  # read again with what follows
            text = text.removeprefix("\r\n" if text.startswith("\r\n") else "\n")
            quote = '"'
        self._string_pieces += len(pieces)
        size = 2 if text.endswith("\r\n") else 1 if text.endswith(("\r", "\n")) else 0
        self._held = text[len(text) - size :]
        return quote + json.dumps(text[: len(text) - size], ensure_ascii=False)[1:-1]
