r"""Lone surrogates, halves of a character that no UTF-8 and no tokenizer takes, become U+FFFD.

Python's strings may hold them as characters; JSON may also hold them as escapes, such as `\ud83d`.
"""

from __future__ import annotations

import re

_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
# Whole pairs and other escapes are matched too, so that what looks like an escape behind a backslash is none.
_IN_JSON = re.compile(rf"{_HIGH}{_LOW}|(?P<lone>{_HIGH}|{_LOW})|\\.", re.DOTALL)


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
