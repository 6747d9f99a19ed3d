"""Guides in the notation of llguidance, which is built into llama.cpp: a JSON schema or an expression behind thinking.

llguidance parses with a budget, so no guide costs it more than seconds. llama.cpp does not say when it cannot compile
one, and generates without it; `probe` is for finding out. Nor does it say when nothing fits a guide, or the budget is
used up in the middle of an answer; from there on the guide is not enforced.
"""

from __future__ import annotations

import json

from nemotron_triton.chat.reasoning import CLOSER, OPENER
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Guide

# A text that no model writes by itself.
PROBE = b"\x01"
# As models write JSON: what blanks there may be, a model could otherwise repeat for ever.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def llguidance(guide: Guide, codec: TokenCodec, *, probe: bool = False) -> str:
    """*guide*, which is no grammar, for llama.cpp's `grammar`; as a *probe* its text begins with `PROBE`."""
    rules = ["%llguidance {}"]
    start = ['"\\u0001"'] if probe else []
    if guide.thinking == "model opens":
        start += [_control(OPENER, codec) or json.dumps(OPENER), '"\\n"']
    if guide.thinking != "none":
        start += ["thinking", r"/\n{0,2}/"]
        # Where the tag is a control token no text spells it, and the text before it ends by itself.
        tag = _control(CLOSER, codec)
        rules.append(rf"thinking: /(.|\n)*/ {tag}" if tag else rf"thinking[lazy]: /(.|\n)*{_escaped(CLOSER)}/")
    if guide.kind == "regex":
        rules.append(f"guided: /{_escaped(guide.text)}/")
    else:
        rules.append(f"guided: %json {json.dumps(json.loads(guide.text) | {'x-guidance': _SPACING})}")
    return "\n".join([rules[0], f"start: {' '.join([*start, 'guided'])}", *rules[1:]])


def _control(text: str, codec: TokenCodec) -> str | None:
    token_id = codec.control_id(text)
    return None if token_id is None else f"<[{token_id}]>"


def _escaped(expression: str) -> str:
    """*expression* as it may stand between slashes, on one line."""
    written: list[str] = []
    escaped = False
    for character in expression:
        if character in _AS_ESCAPES:
            # Behind a backslash that is there already, only what follows a backslash.
            character = _AS_ESCAPES[character][escaped:]
        written.append(character)
        escaped = character == "\\" and not escaped
    return "".join(written)


_AS_ESCAPES = {"/": "\\/", "\n": "\\n", "\r": "\\r", "\0": "\\x00"}
