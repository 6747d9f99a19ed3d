"""Grammars that leave a model no other way than to call: what `tool_choice` required or named means.

The notation is GBNF (an EBNF that llama.cpp and XGrammar read). Thinking, where it was asked for, stays free. Values
follow the schema's simple types; what it says beyond types, names and required parameters is not enforced.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from nemotron_triton.chat.conversation import ToolChoice
from nemotron_triton.chat.reasoning import CLOSER, OPENER, Thinking
from nemotron_triton.chat.schema import properties, type_names
from nemotron_triton.errors import RequestError

# An engine may look at all of them for every token that the model could pick next.
MAX_ALTERNATIVES = 4096

_VALUES = {
    "null": '"null"',
    "boolean": '("true" | "false")',
    "integer": "integer",
    "number": "number",
    "object": "object",
    "array": "array",
    "string": "string",
}
# The free think block before a call, `free` as any other text that ends before a closing tag.
_BLOCK = rf'free "{CLOSER}" ("\n" "\n"?)? '
_THINKING: dict[Thinking, str] = {"none": "", "model opens": rf'"{OPENER}\n" {_BLOCK}', "opened": _BLOCK}
_COMMON = r"""free ::= ([^<] | "<" [^/])*
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" (string ": " value (", " string ": " value)*)? "}"
array ::= "[" (value (", " value)*)? "]"
string ::= "\"" ([^"\\\x00-\x1f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F]))* "\""
integer ::= "-"? ("0" | [1-9] [0-9]*)
number ::= integer ("." [0-9]+)? ([eE] [-+]? [0-9]+)?
"""


def forced_call(
    tool_call_format: str,
    functions: Iterable[Mapping[str, Any]],
    choice: ToolChoice,
    *,
    thinking: Thinking,
    parallel: bool,
) -> str:
    """The grammar of an answer that calls one of *functions*, or more of them where that is allowed.

    Raises `RequestError` when there is too much to choose from.
    """
    block, call = _FORMATS[tool_call_format]
    wanted = [each for each in functions if choice.mode == "required" or each["name"] == choice.name]
    names = [f"call{i}" for i in range(len(wanted))]
    root = block(f"({' | '.join(names)})", parallel and choice.mode == "required")
    rules = [rule for name, function in zip(names, wanted, strict=True) for rule in call(name, function)]
    if (alternatives := sum(rule.count(" | ") for rule in rules)) > MAX_ALTERNATIVES:
        raise RequestError(
            f"tool_choice would force a call out of {alternatives} names and values that the tools list; "
            f"at most {MAX_ALTERNATIVES} are accepted: list fewer, or leave the choice to the model (auto)"
        )
    return "\n".join([f"root ::= {_THINKING[thinking]}{root}", *rules, _COMMON])


def _json_block(one: str, several: bool) -> str:
    more = f'(", " {one})*' if several else ""
    return f'"<TOOLCALL>[" {one} {more} "]</TOOLCALL>"'


def _json_call(rule: str, function: Mapping[str, Any]) -> list[str]:
    name, schema = _json(function["name"]), function.get("parameters")

    def pair(key: str, about: object) -> str:
        return f"{_literal(_json(key) + ': ')} {_value(about, schema)}"

    required, optional = ([pair(*each) for each in group] for group in _parameters(function))
    more = f"{rule}-option" if optional else ""
    if required:
        members = ' ", " '.join(required) + (f' (", " {more})*' if more else "")
    else:
        members = f'({more} (", " {more})*)?' if more else ""
    arguments = f'"{{" {members} "}}"' if isinstance(schema, Mapping) else "object"
    head = _literal(f'{{"name": {name}, "arguments": ')
    return [f'{rule} ::= {head} {arguments} "}}"', *_options(rule, optional)]


def _xml_block(one: str, several: bool) -> str:
    more = f'("\\n" {one})*' if several else ""
    return f"{one} {more}"


def _xml_call(rule: str, function: Mapping[str, Any]) -> list[str]:
    schema = function.get("parameters")

    def parameter(key: str, about: object) -> str:
        kinds = type_names(about, schema)
        value = "free" if not kinds or "string" in kinds else _value(about, schema)
        head, tail = _literal(f"<parameter={key}>\n"), _literal("\n</parameter>\n")
        return f"{head} {value} {tail}"

    required, optional = ([parameter(*each) for each in group] for group in _parameters(function))
    more = f"{rule}-option*" if optional else ""
    head, tail = _literal(f"<tool_call>\n<function={function['name']}>\n"), _literal("</function>\n</tool_call>")
    return [f"{rule} ::= {' '.join([head, *required, more, tail])}", *_options(rule, optional)]


def _options(rule: str, optional: list[str]) -> list[str]:
    """The parameters that may be left out, as a rule of their own: llama.cpp limits how much a repetition may hold."""
    return [f"{rule}-option ::= {' | '.join(optional)}"] if optional else []


def _parameters(function: Mapping[str, Any]) -> tuple[list[tuple[str, object]], list[tuple[str, object]]]:
    """The declared parameters, in order: those that are required, and the others."""
    schema = function.get("parameters")
    required = schema.get("required") if isinstance(schema, Mapping) else None
    names = set(map(str, required)) if isinstance(required, (list, tuple)) else set()
    pairs = list(properties(schema).items())
    return [each for each in pairs if each[0] in names], [each for each in pairs if each[0] not in names]


def _value(about: object, root: object) -> str:
    """A value of the types that a parameter's schema allows, or of those it lists."""
    listed = about.get("enum") if isinstance(about, Mapping) else None
    if isinstance(listed, (list, tuple)) and listed:
        return f"({' | '.join(_literal(_json(each)) for each in listed)})"
    kinds = [_VALUES[kind] for kind in type_names(about, root) if kind in _VALUES]
    return f"({' | '.join(kinds)})" if kinds else "value"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _literal(text: str) -> str:
    """*text* as a GBNF string: quotes, backslashes and line breaks escaped, all else as it is."""
    for raw, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(raw, escaped)
    return f'"{text}"'


_FORMATS = {"nemotron_json": (_json_block, _json_call), "qwen3_coder": (_xml_block, _xml_call)}
