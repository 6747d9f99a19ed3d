"""Pieces of GBNF, the notation of llama.cpp and XGrammar, for the calls of functions with JSON schemas.

What a schema says beyond types, listed values, names and required parameters is not enforced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nemotron_triton.chat.schema import properties, type_names

_VALUES = {
    "null": '"null"',
    "boolean": '("true" | "false")',
    "integer": "integer",
    "number": "number",
    "object": "object",
    "array": "array",
    "string": "string",
}
# Rules that the others refer to: `free` is any text that ends before a closing tag.
RULES = r"""free ::= ([^<] | "<" [^/])*
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" (string ": " value (", " string ": " value)*)? "}"
array ::= "[" (value (", " value)*)? "]"
string ::= "\"" ([^"\\\x00-\x1f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F]))* "\""
integer ::= "-"? ("0" | [1-9] [0-9]*)
number ::= integer ("." [0-9]+)? ([eE] [-+]? [0-9]+)?
"""


def options(rule: str, optional: list[str]) -> list[str]:
    """The parameters that may be left out, as a rule of their own: llama.cpp limits how much a repetition may hold."""
    return [f"{rule}-option ::= {' | '.join(optional)}"] if optional else []


def parameters(function: Mapping[str, Any]) -> tuple[list[tuple[str, object]], list[tuple[str, object]]]:
    """The declared parameters, in order: those that are required, and the others."""
    schema = function.get("parameters")
    required = schema.get("required") if isinstance(schema, Mapping) else None
    names = set(map(str, required)) if isinstance(required, (list, tuple)) else set()
    pairs = list(properties(schema).items())
    return [each for each in pairs if each[0] in names], [each for each in pairs if each[0] not in names]


def value(about: object, root: object) -> str:
    """A value of the types that a parameter's schema allows, or of those it lists."""
    listed = about.get("enum") if isinstance(about, Mapping) else None
    if isinstance(listed, (list, tuple)) and listed:
        return f"({' | '.join(literal(json_text(each)) for each in listed)})"
    kinds = [_VALUES[kind] for kind in type_names(about, root) if kind in _VALUES]
    return f"({' | '.join(kinds)})" if kinds else "value"


def json_text(value: object) -> str:
    """*value* as models write JSON."""
    return json.dumps(value, ensure_ascii=False)


def literal(text: str) -> str:
    """*text* as a GBNF string: quotes, backslashes and line breaks escaped, all else as it is."""
    for raw, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(raw, escaped)
    return f'"{text}"'
