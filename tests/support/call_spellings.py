"""How calls are spelt in each tool-call format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nemotron_triton.chat.formats import format_names

Calls = Sequence[tuple[str, Mapping[str, str]]]


def as_json(calls: Calls, ascii_only: bool) -> str:
    body = json.dumps([{"name": name, "arguments": given_} for name, given_ in calls], ensure_ascii=ascii_only)
    return f"<TOOLCALL>{body}</TOOLCALL>" if calls else ""


def as_xml(calls: Calls, ascii_only: bool) -> str:
    return "\n".join(
        f"<tool_call>\n<function={name}>\n"
        + "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in given_.items())
        + "</function>\n</tool_call>"
        for name, given_ in calls
    )


@dataclass(frozen=True)
class Spelling:
    """Calls of one format: any calls, a call of `tip`, and the text that completes a call."""

    written: Callable[[Calls, bool], str]
    call: str
    last: str


SPELLINGS = {
    "nemotron_json": Spelling(as_json, '<TOOLCALL>[{"name": "tip", "arguments": {"bill": 100}}]</TOOLCALL>', "}"),
    "qwen3_coder": Spelling(
        as_xml,
        "<tool_call>\n<function=tip>\n<parameter=bill>\n100\n</parameter>\n</function>\n</tool_call>",
        "</function>",
    ),
}
FORMATS = format_names()
