"""Grammars that leave a model no other way than to call: what `tool_choice` required or named means.

Thinking, where it was asked for, stays free. How a call is spelt is its format's business, in the notation of `gbnf`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nemotron_triton.chat import gbnf
from nemotron_triton.chat.conversation import ToolChoice
from nemotron_triton.chat.formats import call_format
from nemotron_triton.chat.reasoning import CLOSER, OPENER, Thinking
from nemotron_triton.errors import RequestError

# An engine may look at all of them for every token that the model could pick next.
MAX_ALTERNATIVES = 4096
# The free think block before a call.
_BLOCK = rf'free "{CLOSER}" ("\n" "\n"?)? '
_THINKING: dict[Thinking, str] = {"none": "", "model opens": rf'"{OPENER}\n" {_BLOCK}', "opened": _BLOCK}


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
    spelling = call_format(tool_call_format)
    wanted = [function for function in functions if choice.mode == "required" or function["name"] == choice.name]
    names = [f"call{i}" for i in range(len(wanted))]
    root = spelling.block_rule(f"({' | '.join(names)})", several=parallel and choice.mode == "required")
    rules = [rule for name, function in zip(names, wanted, strict=True) for rule in spelling.call_rules(name, function)]
    if (alternatives := sum(rule.count(" | ") for rule in rules)) > MAX_ALTERNATIVES:
        raise RequestError(
            f"tool_choice would force a call out of {alternatives} names and values that the tools list; "
            f"at most {MAX_ALTERNATIVES} are accepted: list fewer, or leave the choice to the model (auto)"
        )
    return "\n".join([f"root ::= {_THINKING[thinking]}{root}", *rules, gbnf.RULES])
