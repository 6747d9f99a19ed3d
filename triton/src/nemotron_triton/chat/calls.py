"""Tool-call blocks in the two formats, read while they arrive.

A call is reported when it is whole: a block that turns out unreadable must come back as the text it is, and what was
sent cannot be taken back. Which calls are wanted, and what becomes of the text that is none, is `answer`'s business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from nemotron_triton.chat import lenient_json, schema
from nemotron_triton.chat.source import BLANKS, Source, Tags, Wait

_BRACKETS = re.compile(r"[\s\[\],}]+")
_FENCES = ("```json", "```python", "```")
_FUNCTION, _PARAMETER, _CALL = "<function=", "<parameter=", "<tool_call>"
_END_PARAMETER, _END_FUNCTION, _END_CALL = "</parameter>", "</function>", "</tool_call>"
_FUNCTIONS, _OPENERS = Tags(_FUNCTION), Tags(_CALL, _FUNCTION)
_JSON_CALL = Tags("{", "[", "```")
_JSON_BODY = lenient_json.structure(_END_FUNCTION, _END_CALL)
_IN_FUNCTION = Tags(_PARAMETER, _END_FUNCTION, _END_CALL, "{")
_AFTER_FUNCTION = Tags(_FUNCTION, _END_CALL, _CALL)
_NAME_ENDS = Tags(">", "\n")
_VALUE_ENDS = Tags(_END_PARAMETER, _END_FUNCTION, _END_CALL, _PARAMETER)
# A closer ends a value only where one of these follows, or nothing; elsewhere it is part of the value.
_FOLLOWERS = {
    _END_PARAMETER: Tags(_PARAMETER, _END_FUNCTION, _END_CALL, _CALL, _FUNCTION),
    _END_FUNCTION: Tags(_END_CALL, _CALL, _FUNCTION),
    _END_CALL: Tags(_CALL),
}

# Reading a block gives None, or the code of what is wrong with the text after its last call.
Problem: TypeAlias = str | None


@dataclass(frozen=True)
class FoundCall:
    """A whole call; *arguments_json* is valid JSON, and an object unless the model wrote something else.

    *repaired* says that the model's own JSON had to be set right for that.
    """

    name: str
    arguments_json: str
    repaired: bool = False


@dataclass(frozen=True)
class BlockReader:
    """Reads one kind of block. *parameters* has the schemas of the known functions, *found* takes each call.

    *skipped* takes the code of a call that is whole but of no use, and says whether the block may be read on.
    """

    source: Source
    parameters: Mapping[str, Any]
    found: Callable[[FoundCall], None]
    skipped: Callable[[str], bool]

    OPENERS: ClassVar[tuple[str, ...]]
    CLOSER: ClassVar[str]

    def read(self, opener: str) -> Wait[Problem]:
        """Read the block whose *opener* was read last."""
        raise NotImplementedError

    def unreadable(self) -> str:
        """The code for a block that ends in the wrong place."""
        return "truncated_tool_call" if self.source.ended and self.source.cut else "invalid_tool_call"


class JsonBlock(BlockReader):
    """`<TOOLCALL>[{"name": ..., "arguments": {...}}, ...]</TOOLCALL>`."""

    OPENERS = ("<TOOLCALL>",)
    CLOSER = "</TOOLCALL>"

    def read(self, opener: str) -> Wait[Problem]:  # noqa: ARG002 - there is only one
        """Read to `</TOOLCALL>`."""
        return (yield from self.read_to(self.CLOSER))

    def read_to(self, closer: str) -> Wait[Problem]:
        """Read calls up to *closer*. Between them only brackets, commas, blanks and code fences may stand."""
        source, inside, closers = self.source, lenient_json.structure(closer), Tags(closer)
        between = Tags("{", closer, *_FENCES)
        any_call, brackets = False, ""
        while True:
            brackets = (brackets + "".join((yield from source.run(_BRACKETS)).split()))[:3]
            tag = yield from source.accept(between)
            while tag == "{":
                read = yield from lenient_json.read_container(source, inside)
                problem = self._report(read)
                if problem and (read.text is None or not self.skipped(problem)):
                    return problem
                any_call, tag = True, read.ended_by
            readable = any_call or brackets == "[]"
            if tag == closer:
                return None if readable else "invalid_tool_call"
            if not tag:
                yield from source.peek()
                source.broken_off(closers)
                # Behind a call, text is the answer going on: the closer is missing.
                return None if readable else self.unreadable()

    def _report(self, read: lenient_json.ReadText) -> Problem:
        """Report the call that was read, or say why it is none."""
        fields = None if read.text is None else lenient_json.members(read.text)
        if fields is None:
            return self.unreadable()
        if "name" not in fields:
            fields = lenient_json.members(fields.get("function", "")) or {}
        name = lenient_json.loads(fields.get("name", "null"))
        if not isinstance(name, str) or not (name := _tidy(name)):
            return "missing_name"
        written = fields.get("arguments", fields.get("parameters", "{}"))
        arguments = _as_object(written)
        self.found(FoundCall(name, arguments, repaired=read.repaired or arguments != written))
        return None


class XmlBlock(BlockReader):
    """`<tool_call><function=NAME><parameter=KEY>VALUE</parameter>...</function></tool_call>`, line by line."""

    OPENERS = (_CALL, _FUNCTION)
    CLOSER = _END_CALL

    def read(self, opener: str) -> Wait[Problem]:
        """Read to `</tool_call>`, or as far as it makes sense where closers are missing."""
        source, tag = self.source, opener
        while True:
            if tag == _CALL:
                yield from source.run(BLANKS)
                if (yield from source.see(_JSON_CALL)):
                    return (yield from JsonBlock(source, self.parameters, self.found, self.skipped).read_to(_END_CALL))
                if not (yield from source.accept(_FUNCTIONS)):
                    return self.unreadable()
            problem = yield from self._function(bare=opener == _FUNCTION)
            if problem and not (problem == "missing_name" and self.skipped(problem)):
                return problem
            yield from source.run(BLANKS)
            tag = yield from source.accept(_AFTER_FUNCTION)
            if tag in ("", _END_CALL):
                source.broken_off(_AFTER_FUNCTION)
                return None

    def _function(self, *, bare: bool) -> Wait[Problem]:
        """Read from the name to where the function ends; *bare* means that no `<tool_call>` stands before it."""
        source = self.source
        name, stop = yield from self._name()
        if not stop or "<" in name:
            return self.unreadable()
        declared = schema.properties(self.parameters.get(name))
        values: dict[str, str] = {}
        tag = key = ""
        repaired = False
        while True:
            if not tag:
                yield from source.run(BLANKS)
                tag = yield from source.accept(_IN_FUNCTION)
            if tag == _PARAMETER:
                key = key or (yield from self._name())[0]
                value, tag, next_key = yield from self._value(declared, values.keys() | {key})
                if value is None:
                    return self.unreadable()
                values[key], key = schema.as_json(value, declared.get(key), self.parameters.get(name)), next_key
                continue
            if tag == "{" and not values:
                read = yield from lenient_json.read_container(source, _JSON_BODY)
                fields = None if read.text is None else lenient_json.members(read.text)
                if fields is None:
                    return self.unreadable()
                values, tag = fields, read.ended_by if read.ended_by in _FOLLOWERS else ""
                repaired = read.repaired
                continue
            if tag not in (_END_FUNCTION, _END_CALL):
                at_end = (yield from source.peek()) == "" and not source.cut
                if not (yield from source.see(_OPENERS)) and not (at_end and (values or not bare)):
                    return self.unreadable()
            if not name:
                return "missing_name"
            pairs = (f"{json.dumps(key, ensure_ascii=False)}: {value}" for key, value in values.items())
            self.found(FoundCall(name, f"{{{', '.join(pairs)}}}", repaired=repaired))
            return None

    def _name(self) -> Wait[tuple[str, str]]:
        """A name without blanks and quotes around it, and what ended it ("" when nothing did)."""
        pieces: list[str] = []
        stop = yield from self.source.until(_NAME_ENDS, pieces.append)
        return _tidy("".join(pieces)), stop

    def _value(self, declared: Collection[str], given: Collection[str]) -> Wait[tuple[str | None, str, str]]:
        """A parameter's text (None when it never ends), the tag that ended it if not its own closer, and the next key.

        `<parameter=` on a new line ends a value that has no closer only where it names a parameter still to come.
        """
        source, pieces = self.source, list[str]()
        while True:
            tag = yield from source.until(_VALUE_ENDS, pieces.append)
            if not tag:
                return None, "", ""
            text = pieces[-1] if pieces else "\n"
            if tag == _PARAMETER:
                raw_key: list[str] = []
                stop = yield from source.until(_NAME_ENDS, raw_key.append)
                key = _tidy("".join(raw_key))
                if text.endswith("\n") and key in declared and key not in given:
                    return _without_newlines("".join(pieces)), tag, key
                pieces += [tag, *raw_key, stop]
                continue
            blanks = yield from source.run(BLANKS)
            follower = yield from source.see(_FOLLOWERS[tag])
            if follower or ((yield from source.peek()) == "" and not (source.cut and tag != _END_PARAMETER)):
                return _without_newlines("".join(pieces)), "" if tag == _END_PARAMETER else tag, ""
            pieces += [tag, blanks]


def _as_object(text: str) -> str:
    """Arguments as an object where they are one in some way: a JSON string that holds it, null, nothing."""
    value = lenient_json.loads(text) if text.startswith('"') else None
    if isinstance(value, str):
        inner = value.strip() or "null"
        return lenient_json.repaired(inner, "{") or ("{}" if inner == "null" else text)
    return "{}" if text == "null" else text


def _tidy(name: str) -> str:
    """*name* without the blanks and quotes around it; "" when it cannot be written as UTF-8."""
    name = name.strip().strip("\"'").strip()
    return "" if any("\ud800" <= char <= "\udfff" for char in name) else name


def _without_newlines(text: str) -> str:
    """*text* without the one line break on each side that belongs to the markup."""
    for newline in ("\r\n", "\n"):
        if text.startswith(newline):
            text = text[len(newline) :]
            break
    for newline in ("\r\n", "\n"):
        if text.endswith(newline):
            return text[: -len(newline)]
    return text


READERS: dict[str, type[BlockReader]] = {"nemotron_json": JsonBlock, "qwen3_coder": XmlBlock}
