"""Calls written as JSON objects, which several formats share: how they are read, and their grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nemotron_triton.chat import gbnf, lenient_json
from nemotron_triton.chat.calls import Block, FoundCall, Problem
from nemotron_triton.chat.names import tidy
from nemotron_triton.chat.schema_rules import SchemaRules
from nemotron_triton.chat.schema_scalars import Languages
from nemotron_triton.chat.source import BLANKS, Source, Tags, Wait, tags_of
from nemotron_triton.chat.written import Written

_BRACKETS = re.compile(r"[\s\[\],;}]+")
_FENCES = ("```json", "```python", "```")
_ARGUMENTS = ("arguments", "parameters")
_COMMENTS = {"//": "\n", "#": "\n", "/*": "*/"}
_WORD = re.compile(r"[-+.\w()]+", re.ASCII)


def read_calls(block: Block, opener: str, closer: str) -> Wait[Problem]:
    """Read calls up to *closer*.

    Only brackets, commas, semicolons, whitespace and code fences may stand between them, behind the first bracket or
    call also comments, and in a list elements that are no objects, which are skipped. *opener* again is noise.
    """
    source, inside = block.source, lenient_json.structure(closer)
    begin = _begins(block)
    between = tags_of("{", opener, closer, *_FENCES, *_COMMENTS)
    behind_element = tags_of(",", ";", "[", "]", *between.tags)
    read_one, brackets, behind, depth = False, "", "", 0
    while True:
        separators = yield from source.run(_BRACKETS)
        brackets, behind = (brackets + "".join(separators.split()))[:3], behind + separators
        depth += separators.count("[") - separators.count("]")
        tag = yield from source.accept(between)
        while tag == "{":
            behind = ""
            read = yield from lenient_json.read_container(source, inside, begin=begin)
            if problem := report(block, read):
                if read.text is None:
                    return problem
                block.skipped(problem)
            read_one, tag = True, read.ended_by
            depth -= tag == "]"
        if tag in _COMMENTS:
            if not (read_one or brackets):
                return "invalid_tool_call"
            if "]" in behind and "\n" in behind.rpartition("]")[2]:
                source.unread(tag)  # a line of its own behind the list is text: the closer is missing
                return None
            tag = yield from source.until(tags_of(_COMMENTS[tag], closer), _ignored)
            behind += tag
        if tag == closer:
            return None if read_one or brackets == "[]" else "invalid_tool_call"
        in_list = depth > 0 and behind.rstrip().endswith(("[", ",", ";"))
        if not tag and in_list and (yield from _skip_element(source, behind_element)):
            block.skipped("invalid_tool_call")
            behind = ""
        elif not tag:
            yield from source.peek()
            source.broken_off(tags_of(closer))
            # Text behind a call continues the answer: the closer is missing.
            return None if read_one or brackets == "[]" else block.unreadable()


def _skip_element(source: Source, ends: Tags) -> Wait[bool]:
    """Read an element of a list that is a string or a word; False, and nothing is read, where no element stands."""
    quote = yield from source.peek()
    read = [(yield from source.run(_WORD))]
    whole = bool(read[0]) or (quote in ("'", '"') and (yield from lenient_json.skip_string(source, read)))
    read.append((yield from source.run(BLANKS)))
    if whole and (yield from source.see(ends)):
        return True
    source.unread("".join(read))
    return False


def report(block: Block, read: lenient_json.ReadText) -> Problem:
    """Report the call that was read; the problem, if it is none."""
    fields = None if read.text is None else lenient_json.members(read.text)
    if fields is None:
        return block.unreadable()
    if "name" not in fields:
        fields = lenient_json.members(fields.get("function", "")) or {}
    if not (name := _name(fields)):
        return "missing_name"
    text = next((text for key, text in fields.items() if key in _ARGUMENTS), "{}")
    arguments = _as_object(text)
    block.found(FoundCall(name, arguments, repaired=read.repaired or arguments != text))
    return None


def _name(fields: Mapping[str, str]) -> str:
    name = lenient_json.loads(fields.get("name", "null"))
    return tidy(name) if isinstance(name, str) else ""


def _begins(block: Block) -> lenient_json.Begin | None:
    """What notices that the arguments of a call begin, where its name is known by then."""
    if block.begin is None:
        return None
    begin = block.begin

    def begins(before: str) -> Written | None:
        keys = list(fields := lenient_json.members(before + "{}}") or {})
        arguments = [key for key in keys if key in _ARGUMENTS]
        name = _name(fields) if arguments and arguments == keys[-1:] else ""
        return begin(name) if name else None

    return begins


def call_rules(rule: str, function: Mapping[str, Any], arguments_key: str, languages: Languages) -> list[str]:
    """The grammar of a call of *function*, whose arguments have the key *arguments_key*."""
    values = SchemaRules.of(rule, function, languages)
    found = [values.object_of(plain) for plain in values.arguments()]
    head = gbnf.literal(f'{{"name": {gbnf.json_text(function["name"])}, "{arguments_key}": ')
    return [f'{rule} ::= {head} {values.one_of(found)} ws "}}"', *values.lines]


def _ignored(_text: str) -> None:
    pass


def _as_object(text: str) -> str:
    """The text of arguments as that of an object, where it is one inside a JSON string, null or empty."""
    value = lenient_json.loads(text) if text.startswith('"') else None
    if isinstance(value, str):
        inner = value.strip() or "null"
        return lenient_json.repaired(inner, "{") or ("{}" if inner == "null" else text)
    return "{}" if text == "null" else text
