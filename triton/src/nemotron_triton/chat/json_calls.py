"""Calls written as JSON objects, which several formats share: how they are read, and their grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nemotron_triton.chat import gbnf, lenient_json
from nemotron_triton.chat.calls import Block, FoundCall, Problem, tidy
from nemotron_triton.chat.schema_rules import SchemaRules
from nemotron_triton.chat.schema_scalars import Languages
from nemotron_triton.chat.source import Tags, Wait

_BRACKETS = re.compile(r"[\s\[\],}]+")
_FENCES = ("```json", "```python", "```")


def read_calls(block: Block, closer: str) -> Wait[Problem]:
    """Read calls up to *closer*. Only brackets, commas, whitespace and code fences may stand between them."""
    source, inside, closers = block.source, lenient_json.structure(closer), Tags(closer)
    between = Tags("{", closer, *_FENCES)
    any_call, brackets = False, ""
    while True:
        brackets = (brackets + "".join((yield from source.run(_BRACKETS)).split()))[:3]
        tag = yield from source.accept(between)
        while tag == "{":
            read = yield from lenient_json.read_container(source, inside)
            problem = report(block, read)
            if problem and (read.text is None or not block.skipped(problem)):
                return problem
            any_call, tag = True, read.ended_by
        readable = any_call or brackets == "[]"
        if tag == closer:
            return None if readable else "invalid_tool_call"
        if not tag:
            yield from source.peek()
            source.broken_off(closers)
            # Text behind a call continues the answer: the closer is missing.
            return None if readable else block.unreadable()


def report(block: Block, read: lenient_json.ReadText) -> Problem:
    """Report the call that was read; the problem, if it is none."""
    fields = None if read.text is None else lenient_json.members(read.text)
    if fields is None:
        return block.unreadable()
    if "name" not in fields:
        fields = lenient_json.members(fields.get("function", "")) or {}
    name = lenient_json.loads(fields.get("name", "null"))
    if not isinstance(name, str) or not (name := tidy(name)):
        return "missing_name"
    text = fields.get("arguments", fields.get("parameters", "{}"))
    arguments = _as_object(text)
    block.found(FoundCall(name, arguments, repaired=read.repaired or arguments != text))
    return None


def call_rules(rule: str, function: Mapping[str, Any], arguments_key: str, languages: Languages) -> list[str]:
    """The grammar of a call of *function*, whose arguments have the key *arguments_key*."""
    values = SchemaRules.of(rule, function, languages)
    found = [values.object_of(plain) for plain in values.arguments()]
    head = gbnf.literal(f'{{"name": {gbnf.json_text(function["name"])}, "{arguments_key}": ')
    return [f'{rule} ::= {head} {values.one_of(found)} ws "}}"', *values.lines]


def _as_object(text: str) -> str:
    """The text of arguments as that of an object, where it is one inside a JSON string, null or empty."""
    value = lenient_json.loads(text) if text.startswith('"') else None
    if isinstance(value, str):
        inner = value.strip() or "null"
        return lenient_json.repaired(inner, "{") or ("{}" if inner == "null" else text)
    return "{}" if text == "null" else text
