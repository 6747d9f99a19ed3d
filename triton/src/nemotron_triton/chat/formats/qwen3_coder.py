"""Calls as lines of XML: `<tool_call><function=NAME><parameter=KEY>VALUE</parameter>...</function></tool_call>`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from nemotron_triton.chat import gbnf, json_calls, lenient_json, schema
from nemotron_triton.chat.calls import Block, CallFormat, FoundCall, Problem, tidy
from nemotron_triton.chat.schema_rules import SchemaRules
from nemotron_triton.chat.schema_scalars import Languages
from nemotron_triton.chat.source import BLANKS, Source, Tags, Wait

_FUNCTION, _PARAMETER, _CALL = "<function=", "<parameter=", "<tool_call>"
_END_PARAMETER, _END_FUNCTION, _END_CALL = "</parameter>", "</function>", "</tool_call>"
_FUNCTIONS, _OPENERS = Tags(_FUNCTION), Tags(_CALL, _FUNCTION)
_JSON_CALL = Tags("{", "[", "```")
_JSON_BODY = lenient_json.structure(_END_FUNCTION, _END_CALL)
_IN_FUNCTION = Tags(_PARAMETER, _END_FUNCTION, _END_CALL, "{")
_AFTER_FUNCTION = Tags(_FUNCTION, _END_CALL, _CALL)
_NAME_ENDS = Tags(">", "\n")
_VALUE_ENDS = Tags(_END_PARAMETER, _END_FUNCTION, _END_CALL, _PARAMETER)
# A closer ends a value only in front of one of these, or of the end; elsewhere it is part of the value.
_FOLLOWERS = {
    _END_PARAMETER: Tags(_PARAMETER, _END_FUNCTION, _END_CALL, _CALL, _FUNCTION),
    _END_FUNCTION: Tags(_END_CALL, _CALL, _FUNCTION),
    _END_CALL: Tags(_CALL),
}
# What no text that the grammar writes has, because it could end there when it is read: the closer, and as much of other
# tags as tells them from those of HTML, because each character more costs XGrammar another pass over the vocabulary.
# Shorter ones where the characters are counted too. And the names of undeclared parameters.
_NO_TEXT = rf"{_END_PARAMETER}|\n<paramet|</func|</tool"
_NO_COUNTED_TEXT = r"</(pa|fu|to)|\n<pa"
_NAME = "^[A-Za-z_][A-Za-z0-9_.-]*$"


class Format(CallFormat):
    """The format of the Nemotron 3 Nano models, which sometimes write the call in a block as JSON."""

    openers = (_CALL, _FUNCTION)
    closers = (_END_CALL,)

    def read(self, block: Block, opener: str) -> Wait[Problem]:
        source, tag = block.source, opener
        while True:
            if tag == _CALL:
                yield from source.run(BLANKS)
                if (yield from source.see(_JSON_CALL)):
                    return (yield from json_calls.read_calls(block, _END_CALL))
                if not (yield from source.accept(_FUNCTIONS)):
                    return block.unreadable()
            problem = yield from _function(block, bare=opener == _FUNCTION)
            if problem and not (problem == "missing_name" and block.skipped(problem)):
                return problem
            yield from source.run(BLANKS)
            tag = yield from source.accept(_AFTER_FUNCTION)
            if tag in ("", _END_CALL):
                source.broken_off(_AFTER_FUNCTION)
                return None

    def block_rule(self, call: str, *, several: int) -> str:
        more = gbnf.repeated(f'"\\n" {call}', 0, several - 1)
        return f"{call} {more}"

    def call_rules(self, name: str, function: Mapping[str, Any], languages: Languages) -> list[str]:
        values = SchemaRules.of(name, function, languages)
        found = [_parameters(values, plain) for plain in values.arguments()]
        head = gbnf.literal(f"{_CALL}\n{_FUNCTION}{function['name']}>\n")
        tail = gbnf.literal(f"{_END_FUNCTION}\n{_END_CALL}")
        return [f"{name} ::= {head} {values.one_of(found)} {tail}", *values.lines]


def _parameters(values: SchemaRules, plain: Mapping[str, Any]) -> str | None:
    """The grammar of the parameters that the plain schema allows."""

    def text(about: object) -> str | None:
        return values.text(about, _NO_TEXT, _NO_COUNTED_TEXT, f"\n{_END_PARAMETER}\n")

    # What is not declared is read as a string.
    members = values.members(plain, text, lambda about: text({"allOf": [about, {"type": "string"}]}))
    if members is None:
        return None
    pairs, extra, counts = members
    texts = [(f"{_head(key)} {text}", needed) for key, text, needed in pairs]
    if extra is not None:
        name = values.scalars.name(plain, [key for key, _, _ in pairs], _NAME, gbnf.plain)
        extra = f'"{_PARAMETER}" {name} ">\\n" {extra}'
    return values.chain(texts, extra, counts, "")


def _head(key: str) -> str:
    return gbnf.literal(f"{_PARAMETER}{key}>\n")


def _function(block: Block, *, bare: bool) -> Wait[Problem]:
    """Read from the name to the end of the function; *bare* means that no opening tag precedes it."""
    source = block.source
    name, stop = yield from _name(source)
    if not stop or "<" in name:
        return block.unreadable()
    declared = schema.properties(block.parameters.get(name))
    values: dict[str, str] = {}
    tag = key = ""
    repaired = False
    while True:
        if not tag:
            yield from source.run(BLANKS)
            tag = yield from source.accept(_IN_FUNCTION)
        if tag == _PARAMETER:
            key = key or (yield from _name(source))[0]
            value, tag, next_key = yield from _value(source, declared, values.keys() | {key})
            if value is None:
                return block.unreadable()
            values[key], key = schema.as_json(value, declared.get(key), block.parameters.get(name)), next_key
            continue
        if tag == "{" and not values:
            read = yield from lenient_json.read_container(source, _JSON_BODY)
            fields = None if read.text is None else lenient_json.members(read.text)
            if fields is None:
                return block.unreadable()
            values, tag = fields, read.ended_by if read.ended_by in _FOLLOWERS else ""
            repaired = read.repaired
            continue
        if tag not in (_END_FUNCTION, _END_CALL):
            at_end = (yield from source.peek()) == "" and not source.cut
            if not (yield from source.see(_OPENERS)) and not (at_end and (values or not bare)):
                return block.unreadable()
        if not name:
            return "missing_name"
        pairs = (f"{json.dumps(key, ensure_ascii=False)}: {value}" for key, value in values.items())
        block.found(FoundCall(name, f"{{{', '.join(pairs)}}}", repaired=repaired))
        return None


def _name(source: Source) -> Wait[tuple[str, str]]:
    """A name without whitespace and quotes around it, and what ended it ("" when nothing did)."""
    pieces: list[str] = []
    stop = yield from source.until(_NAME_ENDS, pieces.append)
    return tidy("".join(pieces)), stop


def _value(source: Source, declared: Collection[str], known: Collection[str]) -> Wait[tuple[str | None, str, str]]:
    """A parameter's text (None when it never ends), the tag that ended it if not its own closer, and the next key.

    A parameter on a new line ends a value without a closer only if it is declared, and not among the *known* ones.
    """
    pieces: list[str] = []
    while True:
        tag = yield from source.until(_VALUE_ENDS, pieces.append)
        if not tag:
            return None, "", ""
        text = pieces[-1] if pieces else "\n"
        if tag == _PARAMETER:
            raw_key: list[str] = []
            stop = yield from source.until(_NAME_ENDS, raw_key.append)
            key = tidy("".join(raw_key))
            if text.endswith("\n") and key in declared and key not in known:
                return _without_newlines("".join(pieces)), tag, key
            pieces += [tag, *raw_key, stop]
            continue
        blanks = yield from source.run(BLANKS)
        follower = yield from source.see(_FOLLOWERS[tag])
        if follower or ((yield from source.peek()) == "" and not (source.cut and tag != _END_PARAMETER)):
            return _without_newlines("".join(pieces)), "" if tag == _END_PARAMETER else tag, ""
        pieces += [tag, blanks]


def _without_newlines(text: str) -> str:
    """*text* without the line break on each side, which belongs to the markup."""
    text = text.removeprefix("\r\n" if text.startswith("\r\n") else "\n")
    return text.removesuffix("\r\n" if text.endswith("\r\n") else "\n")
