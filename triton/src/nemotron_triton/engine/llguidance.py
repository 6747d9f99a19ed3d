"""Guides for llguidance, which is built into llama.cpp: a JSON schema or a regular expression behind thinking.

llguidance has a budget for parsing, so a guide costs seconds at most. llama.cpp does not report a guide that it cannot
compile, and generates without it; a `probe` shows that. Nor does it report that no token fits a guide, or that the
budget ran out in an answer, from where on the guide is not enforced.
"""

from __future__ import annotations

import json
import re

from nemotron_triton.chat.reasoning import CLOSER, OPENER
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Guide

# A text that no model generates unforced.
PROBE = b"\x01"
# The spacing that models use; a model could repeat optional whitespace for ever.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def llguidance(guide: Guide, codec: TokenCodec, *, probe: bool = False) -> str:
    """*guide*, not a grammar, for llama.cpp's `grammar`; as a *probe* it makes a text that begins with `PROBE`."""
    rules = ["%llguidance {}"]
    start = ['"\\u0001"'] if probe else []
    if guide.thinking == "model opens":
        start += [_control(OPENER, codec) or json.dumps(OPENER), '"\\n"']
    if guide.thinking != "none":
        start += ["thinking", r"/\n{0,2}/"]
        # A control token ends the text before it; a tag that is text needs a lazy match.
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
    """*expression* for between slashes, on one line."""
    # An escaped character keeps the backslash that it has.
    return re.sub(r"\\?[/\n\r\0]|\\.", lambda match: _ESCAPES.get(match[0][-1], match[0]), expression)


_ESCAPES = {"/": "\\/", "\n": "\\n", "\r": "\\r", "\0": "\\x00"}
