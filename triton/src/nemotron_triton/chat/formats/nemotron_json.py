"""Calls as a JSON list between tags: `<TOOLCALL>[{"name": ..., "arguments": {...}}, ...]</TOOLCALL>`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemotron_triton.chat import gbnf, json_calls
from nemotron_triton.chat.calls import Block, CallFormat, Problem
from nemotron_triton.chat.schema_scalars import Languages
from nemotron_triton.chat.source import Wait

_OPENER, _CLOSER = "<TOOLCALL>", "</TOOLCALL>"


class Format(CallFormat):
    """The format of the Llama Nemotron Nano models."""

    openers = (_OPENER,)
    closers = (_CLOSER,)

    def read(self, block: Block, opener: str) -> Wait[Problem]:
        return json_calls.read_calls(block, opener, _CLOSER)

    def block_rule(self, call: str, *, several: int) -> str:
        more = gbnf.repeated(f"{gbnf.COMMA} {call}", 0, several - 1)
        return f'"{_OPENER}[" {call} {more} "]{_CLOSER}"'

    def call_rules(self, name: str, function: Mapping[str, Any], languages: Languages) -> list[str]:
        return json_calls.call_rules(name, function, "arguments", languages)
