"""Calls as lines of XML: `<tool_call><function=NAME><parameter=KEY>VALUE</parameter>...</function></tool_call>`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from nemotron_triton.chat import gbnf, json_calls, lenient_json, schema
from nemotron_triton.chat.calls import Block, CallFormat, FoundCall, Problem
from nemotron_triton.chat.names import longest_name, tidy
from nemotron_triton.chat.schema_rules import SchemaRules
from nemotron_triton.chat.schema_scalars import Languages
from nemotron_triton.chat.source import BLANKS, Source, Tags, Wait
from nemotron_triton.chat.written import Written
from nemotron_triton.chat.xml_value import (
    CALL,
    END_CALL,
    END_FUNCTION,
    END_PARAMETER,
    FUNCTION,
    NAME_ENDS,
    PARAMETER,
    Value,
)

_CALLS, _FUNCTIONS, _OPENERS = Tags(CALL), Tags(FUNCTION), Tags(CALL, FUNCTION)
_JSON_CALL = Tags("{", "[", "```")
_JSON_BODY = lenient_json.structure(END_FUNCTION, END_CALL)
_IN_FUNCTION = Tags(PARAMETER, END_FUNCTION, END_CALL, "{")
_AFTER_FUNCTION = Tags(FUNCTION, END_CALL, CALL, END_FUNCTION)
# What no text that the grammar writes has, because it could end there when it is read: the closer, and as much of other
# tags as tells them from those of HTML, because each character more costs XGrammar another pass over the vocabulary.
# Shorter ones where the characters are counted too. And the names of undeclared parameters.
_NO_TEXT = rf"{END_PARAMETER}|\n<paramet|</func|</tool"
_NO_COUNTED_TEXT = r"</(pa|fu|to)|\n<pa"
_NAME = "^[A-Za-z_][A-Za-z0-9_.-]*$"


class Format(CallFormat):
    """The format of the Nemotron 3 Nano models, which sometimes write the call in a block as JSON."""

    openers = (CALL, FUNCTION)
    closers = (END_CALL, END_FUNCTION)

    def read(self, block: Block, opener: str) -> Wait[Problem]:
        source, tag = block.source, opener
        while True:
            if tag == CALL:
                yield from source.run(BLANKS)
                while (yield from source.accept(_CALLS)):
                    yield from source.run(BLANKS)
                if (yield from source.see(_JSON_CALL)):
                    return (yield from json_calls.read_calls(block, CALL, END_CALL))
                if not (yield from source.accept(_FUNCTIONS)):
                    return block.unreadable()
            problem = yield from _function(block, bare=opener == FUNCTION)
            if problem == "missing_name":
                block.skipped(problem)
            elif problem:
                return problem
            tag = END_FUNCTION
            while tag == END_FUNCTION:
                yield from source.run(BLANKS)
                tag = yield from source.accept(_AFTER_FUNCTION)
            if tag in ("", END_CALL):
                source.broken_off(_AFTER_FUNCTION)
                return None

    def block_rule(self, call: str, *, several: int) -> str:
        more = gbnf.repeated(f'"\\n" {call}', 0, several - 1)
        return f"{call} {more}"

    def call_rules(self, name: str, function: Mapping[str, Any], languages: Languages) -> list[str]:
        values = SchemaRules.of(name, function, languages)
        declared = schema.properties(function.get("parameters"))
        found = [_parameters(values, plain, declared) for plain in values.arguments()]
        head = gbnf.literal(f"{CALL}\n{FUNCTION}{function['name']}>\n")
        tail = gbnf.literal(f"{END_FUNCTION}\n{END_CALL}")
        return [f"{name} ::= {head} {values.one_of(found)} {tail}", *values.lines]


def _parameters(values: SchemaRules, plain: Mapping[str, Any], declared: Mapping[str, Any]) -> str | None:
    """The grammar of the parameters that the plain schema allows, one of those in which they are *declared*."""

    def text(name: str | None, about: object) -> str | None:
        if name not in declared:
            about = {"allOf": [about, {"type": "string"}]}  # as it is read
        known = None if name is None else declared.get(name)
        return values.text(about, known, _NO_TEXT, _NO_COUNTED_TEXT, f"\n{END_PARAMETER}\n")

    members = values.members(plain, text)
    if members is None:
        return None
    pairs, extra, counts = members
    texts = [(f"{_head(key)} {text}", needed) for key, text, needed in pairs]
    if extra is not None:
        name = values.scalars.name(plain, [*declared, *(key for key, _, _ in pairs)], _NAME, gbnf.plain)
        extra = f'"{PARAMETER}" {name} ">\\n" {extra}'
    return values.chain(texts, extra, counts, "")


def _head(key: str) -> str:
    return gbnf.literal(f"{PARAMETER}{key}>\n")


def _function(block: Block, *, bare: bool) -> Wait[Problem]:
    """Read from the name to the end of the function; *bare* means that no opening tag precedes it."""
    source = block.source
    name, stop = yield from _name(source, block.parameters)
    if not stop or "<" in name:
        return block.unreadable()
    declared = schema.properties(block.parameters.get(name))
    values: dict[str, str] = {}
    begin = None if bare or not name else block.begin
    tag = key = ""
    repaired = False
    written: Written | None = None
    while True:
        if not tag:
            yield from source.run(BLANKS)
            tag = yield from source.accept(_IN_FUNCTION)
        if tag == PARAMETER:
            if not key:
                key, stop = yield from _name(source, declared)
                if not stop:
                    return block.unreadable()
            value = Value(source, key, declared, values.keys() | {key})
            about, root = declared.get(key), block.parameters.get(name)
            if begin and not values and (written := begin(name)):
                written.json.append("{")
            if written:
                written.json.append(f"{', ' if values else ''}{json.dumps(key, ensure_ascii=False)}: ")
                written.string = value if schema.is_text(about, root) else None
            text = yield from value.read()
            if text is None:
                return block.unreadable()
            values[key] = schema.as_json(text, about, root)
            if written:
                written.string = None
                written.json.append(values[key])
            tag, key = value.ended_by, value.next_key
            continue
        if tag == "{" and not values:
            body = (lambda before: None if before else begin(name)) if begin else None
            read = yield from lenient_json.read_container(source, _JSON_BODY, begin=body)
            fields = None if read.text is None else lenient_json.members(read.text)
            if fields is None:
                return block.unreadable()
            values, tag = fields, read.ended_by if read.ended_by in (END_FUNCTION, END_CALL) else ""
            repaired = read.repaired
            continue
        if tag not in (END_FUNCTION, END_CALL):
            if not values and (yield from source.accept(Tags(f"{FUNCTION}{name}>"))):
                tag = ""  # the opener twice
                continue
            ends = (yield from source.see(_OPENERS)) or ((yield from source.peek()) == "" and not source.cut)
            if not ends or (bare and not values):
                return block.unreadable()  # without wrapper and closer, it is a mention
        if not name:
            return "missing_name"
        pairs = [f"{json.dumps(key, ensure_ascii=False)}: {value}" for key, value in values.items()]
        arguments = "".join(written.json) if written else "{" + ", ".join(pairs)
        block.found(FoundCall(name, arguments + "}", repaired=repaired))
        return None


def _name(source: Source, declared: Iterable[str]) -> Wait[tuple[str, str]]:
    """A name without whitespace and quotes around it, and what ended it ("" when nothing did)."""
    text, stop = yield from source.up_to(NAME_ENDS, longest_name(declared))
    return tidy(text), stop
