"""What a server's refusal is about: the field, the kind of mistake and the numbers, read from its message.

The messages are for people, and begin with the tensor that is wrong; so servers of every version are understood, and
those that read raw messages see nothing new. What fits no shape is `invalid_value`. A test refuses each of them for
real, at the server, and compares.
"""

from __future__ import annotations

import re

from nemotron_client import wire
from nemotron_client.errors import RefusalCode, RequestRejected
from nemotron_client.options import option_name

_NAMES = {tensor.name for tensor in wire.INPUTS}
# A tensor, and the place in the JSON that it holds.
_FIELD = re.compile(r"(?P<name>\w+)(?P<place>(?:\.\w+|\[\d+\])*)(?=[ :])")
_NUMBER = r"-?\d{1,20}(?:\.\d{1,20})?(?:e[+-]?\d{1,3})?|-?inf|nan"
_VALUE, _LOW, _HIGH = (f"(?P<{name}>{_NUMBER})" for name in ("value", "low", "high"))
_SHAPES: dict[str, RefusalCode] = {
    rf"the prompt has {_VALUE} tokens and leaves no room to answer in .* of {_HIGH};": "context_length_exceeded",
    rf"is {_VALUE}; it must be between {_LOW} and {_HIGH} \(a context of ": "context_length_exceeded",
    rf"is {_VALUE}, and there is room for {_HIGH} tokens only": "context_length_exceeded",
    rf"is {_VALUE}; it must be (?:-1, or )?(?:a token )?between {_LOW} and {_HIGH}$": "out_of_range",
    rf"is {_VALUE}; it must be at least {_LOW}$": "out_of_range",
    rf"(?:has|holds) (?:\D* of )?{_VALUE} \w+; (?:it may have )?at most {_HIGH}(?: are accepted)?$": "too_large",
    # Of gRPC at the server.
    rf"message larger than max \({_VALUE} vs\. {_HIGH}\)": "too_large",
    "cannot be used with this model's engine: ": "unsupported",
}


def rejection(text: str) -> RequestRejected:
    """The error for *text*, in which the server says why it refuses a request."""
    match = _FIELD.match(text)
    field = ""
    if match and match["name"] in _NAMES:
        field = option_name(match["name"]) + match["place"]
    for shape, code in _SHAPES.items():
        if found := re.search(shape, text):
            numbers = {name: _number(digits) for name, digits in found.groupdict().items()}
            value, low, high = (numbers.get(name) for name in ("value", "low", "high"))
            below = value is not None and low is not None and value < low
            return RequestRejected(text, field=field, code=code, value=value, limit=low if below else high)
    return RequestRejected(text, field=field)


def _number(digits: str) -> float:
    return int(digits) if re.fullmatch(r"-?\d+", digits) else float(digits)
