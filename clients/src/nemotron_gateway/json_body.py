"""JSON bodies of requests: read into a typed struct, with the field named that is wrong or not known."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, TypeVar

import msgspec

from nemotron_gateway.errors import invalid

# A field that was left out, which counts as one that is null.
NULL = msgspec.Raw(b"null")
StructT = TypeVar("StructT", bound=msgspec.Struct)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
# An escape: of a pair, of half of one, or any other.
_SURROGATE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
# Where msgspec says that a value of the wrong type is.
_PLACE = re.compile(r" - at `\$\.?(?P<place>.*)`$")


def read(body: bytes, kind: type[StructT]) -> tuple[StructT, frozenset[str]]:
    """The request in *body*, and the names of fields that *kind* does not have; `ApiError` where it is none."""
    try:
        # msgspec does not look into what it leaves as it is.
        body.decode("utf-8")
        try:
            return _decoded(body, kind)
        except msgspec.DecodeError as error:
            if "hex escape" not in str(error):
                raise
            return _decoded(_SURROGATE.sub(_whole, body), kind)
    except msgspec.ValidationError as error:
        text = str(error)
        match = _PLACE.search(text)
        place = match["place"] if match else ""
        message = text[: match.start()] if match else text
        raise invalid(f"{place or 'the body'}: {message[:1].lower()}{message[1:]}", place or None) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise invalid("the body is nested too deeply") from error


def _decoded(body: bytes, kind: type[StructT]) -> tuple[StructT, frozenset[str]]:
    names = _object.decode(body)
    return msgspec.json.decode(body, type=kind), frozenset(names) - frozenset(kind.__struct_encode_fields__)


def _whole(escape: re.Match[bytes]) -> bytes:
    """*escape*, or that of U+FFFD where it is half of a surrogate pair: JavaScript cuts texts in the middle of one."""
    return rb"\ufffd" if escape["half"] else escape[0]


def is_null(raw: msgspec.Raw) -> bool:
    """Whether there is no value."""
    return bytes(raw) == b"null"


def value_of(raw: msgspec.Raw, kind: Any, field: str) -> Any:
    """The value in *raw* as *kind*; `ApiError` names *field*."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise invalid(f"{field}: {error}", field) from error


def refuse(given: Collection[str], refused: dict[str, str]) -> None:
    """Raise `ApiError` for the first field of *given* that is *refused*, with what to do instead."""
    for name in refused:
        if name in given:
            raise invalid(f"{name} is not supported; {refused[name]}", name, "unsupported_parameter")
