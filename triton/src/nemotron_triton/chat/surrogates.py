r"""Lone surrogates, halves of a character that no UTF-8 and no tokenizer takes, become U+FFFD.

Python's strings may hold them as characters; JSON may also hold them as escapes, such as `\ud83d`.
"""

from __future__ import annotations

import re

_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
# Whole pairs and other escapes are matched too, so that what looks like an escape behind a backslash is none.
_IN_JSON = re.compile(rf"{_HIGH}{_LOW}|(?P<lone>{_HIGH}|{_LOW})|\\.", re.DOTALL)
# The same, and at the end what may become an escape, or a pair.
_BEGUN = r"\\(?:u[0-9a-fA-F]{0,3})?"
_AT_END = re.compile(rf"{_HIGH}{_LOW}|(?P<unsure>(?:{_HIGH}(?:{_BEGUN})?|{_BEGUN})\Z)|{_HIGH}|{_LOW}|\\.", re.DOTALL)


def replaced(text: str) -> str:
    """*text* without lone surrogates; a pair of them becomes its character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def replaced_in_json(text: str) -> str:
    """*text*, which is JSON, or nearly, without lone surrogates in its strings; all else is as it was."""
    text = replaced(text)
    return _IN_JSON.sub(lambda match: r"\ufffd" if match["lone"] else match[0], text) if "\\u" in text else text


class ReplacedInJson:
    """`replaced_in_json` of a text that comes in pieces, whose characters are whole; the length stays the same."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """The text up to an escape, or a high surrogate, that what follows may complete."""
        text = self._held + text
        if "\\" not in text:
            return text
        sure = next((match.start() for match in _AT_END.finditer(text) if match["unsure"]), len(text))
        self._held = text[sure:]
        return replaced_in_json(text[:sure])
