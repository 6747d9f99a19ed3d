"""Pieces of GBNF, the grammar notation of llama.cpp and XGrammar, for the calls of functions with JSON schemas.

Of a schema only types, enum values, names and required parameters are enforced.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from nemotron_triton.chat.schema import properties, type_names

_VALUES = {"null": '"null"', "boolean": '("true" | "false")'} | {
    rule: rule for rule in ("integer", "number", "object", "array", "string")
}
# Rules that every grammar needs; `free` is any text that ends before a closing tag.
RULES = r"""free ::= ([^<] | "<" [^/])*
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" (string ": " value (", " string ": " value)*)? "}"
array ::= "[" (value (", " value)*)? "]"
string ::= "\"" ([^"\\\x00-\x1f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F]))* "\""
integer ::= "-"? ("0" | [1-9] [0-9]*)
number ::= integer ("." [0-9]+)? ([eE] [-+]? [0-9]+)?
"""


def options(rule: str, optional: list[str]) -> list[str]:
    """The rule of the optional parameters; a rule of its own, because llama.cpp limits the size of a repetition."""
    return [f"{rule}-option ::= {' | '.join(optional)}"] if optional else []


def parameters(function: Mapping[str, Any], rule: Callable[[str, object], str]) -> tuple[list[str], list[str]]:
    """The *rule* of each declared parameter, in order: of the required ones, and of the optional ones."""
    schema = function.get("parameters")
    required = schema.get("required") if isinstance(schema, Mapping) else None
    names = set(map(str, required)) if isinstance(required, (list, tuple)) else set()
    rules = [(name in names, rule(name, about)) for name, about in properties(schema).items()]
    return [rule for needed, rule in rules if needed], [rule for needed, rule in rules if not needed]


def value(about: object, root: object) -> str:
    """A value of the types, or one of the enum values, that a parameter's schema allows."""
    values = about.get("enum") if isinstance(about, Mapping) else None
    if isinstance(values, (list, tuple)) and values:
        return f"({' | '.join(literal(json_text(value)) for value in values)})"
    kinds = [_VALUES[kind] for kind in type_names(about, root) if kind in _VALUES]
    return f"({' | '.join(kinds)})" if kinds else "value"


def json_text(value: object) -> str:
    """*value* as models write JSON."""
    return json.dumps(value, ensure_ascii=False)


def literal(text: str) -> str:
    """*text* as a GBNF string, with quotes, backslashes and line breaks escaped."""
    for raw, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(raw, escaped)
    return f'"{text}"'
