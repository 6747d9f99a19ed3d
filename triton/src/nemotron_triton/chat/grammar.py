"""Grammars for answers that call functions, where their parameters' schemas must be followed.

Thinking, where it was asked for, stays free, as does text before and behind calls that nothing forces. The format of
the calls brings the rules for them, in GBNF.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nemotron_triton.chat import gbnf
from nemotron_triton.chat.content_cache import ContentCache
from nemotron_triton.chat.conversation import ToolChoice
from nemotron_triton.chat.expressions import Expression
from nemotron_triton.chat.formats import call_format
from nemotron_triton.chat.reasoning import CLOSER, OPENER, Thinking
from nemotron_triton.chat.regular import Budget, Not, Then
from nemotron_triton.chat.schema_scalars import Languages
from nemotron_triton.errors import RequestError

# An engine may try all of them for every candidate of the next token.
MAX_ALTERNATIVES = 4096
# Of one answer: what a model that repeats itself stops at.
MAX_CALLS = 16
_ANY = {"type": "object", "additionalProperties": True}
_CACHED_CHARACTERS = 1 << 20
_grammars: ContentCache[str] = ContentCache(_CACHED_CHARACTERS)
# The free think block before a call.
_BLOCK = r'thought ("\n" "\n"?)? '
_THINKING: dict[Thinking, str] = {"model opens": rf'"{OPENER}\n" {_BLOCK}', "opened": _BLOCK}


def guides_calls(functions: Iterable[Mapping[str, Any]], choice: ToolChoice) -> bool:
    """Whether calls of *functions* are guided: where *choice* forces one, and where one is strict."""
    return choice.forced or (choice.mode == "auto" and any(map(is_strict, functions)))


def call_grammar(
    tool_call_format: str, functions: Sequence[Mapping[str, Any]], choice: ToolChoice, *, parallel: bool
) -> str | None:
    """The grammar for the calls of an answer without thinking, which is kept; None where nothing guides them.

    Raises `RequestError` for a schema that no grammar follows.
    """
    if not guides_calls(functions, choice):
        return None

    def write() -> str:
        if choice.forced:
            return forced_call(tool_call_format, functions, choice, thinking="none", parallel=parallel)
        return strict_calls(tool_call_format, functions, thinking="none")

    key = (json.dumps(functions), tool_call_format, choice.mode, choice.name, str(parallel))
    return _grammars.get(key, write)


def behind_thinking(grammar: str, thinking: Thinking) -> str:
    """*grammar*, of calls, behind the think block that *thinking* describes."""
    if thinking == "none":
        return grammar
    return "\n".join([f"root ::= {_THINKING[thinking]}answer", _thought(), grammar.replace("root", "answer", 1)])


def forced_call(
    tool_call_format: str,
    functions: Iterable[Mapping[str, Any]],
    choice: ToolChoice,
    *,
    thinking: Thinking,
    parallel: bool,
) -> str:
    """The grammar of an answer that calls one of *functions*, or several where *choice* and *parallel* allow it.

    Raises `RequestError` when there are too many alternatives, or a schema has what no grammar follows.
    """
    allowed = [function for function in functions if choice.mode == "required" or function["name"] == choice.name]
    several = MAX_CALLS if parallel and choice.mode == "required" else 1
    block, rules = _block(tool_call_format, allowed, several)
    return behind_thinking(_grammar(block, rules), thinking)


def strict_calls(tool_call_format: str, functions: Iterable[Mapping[str, Any]], *, thinking: Thinking) -> str:
    """The grammar of an answer whose calls, where there are any, follow the schemas of the functions.

    Those of functions that are not `strict` are JSON only, or parameters of any name, as the model would write them.

    Raises `RequestError` as `forced_call` does.
    """
    openers = call_format(tool_call_format).openers
    bounded = [function if is_strict(function) else {**function, "parameters": _ANY} for function in functions]
    block, rules = _block(tool_call_format, bounded, MAX_CALLS)
    text = gbnf.language(_without(*openers), "text")
    return behind_thinking(_grammar(f"text ({block} text){{0,{MAX_CALLS}}}", [*rules, *text]), thinking)


def is_strict(function: Mapping[str, Any]) -> bool:
    """Whether the calls of *function* must follow its schema, also where none is forced."""
    return function.get("strict") is True


def _block(tool_call_format: str, functions: Iterable[Mapping[str, Any]], several: int) -> tuple[str, list[str]]:
    """A block of calls, and the rules for it."""
    calls = call_format(tool_call_format)
    languages = Languages()
    rules: list[str] = []
    names: list[str] = []
    for function in functions:
        names.append(f"call{len(names)}")
        rules += calls.call_rules(names[-1], function, languages)
    if (alternatives := sum(rule.count(" | ") for rule in rules) + len(names) - 1) > MAX_ALTERNATIVES:
        raise RequestError(
            f"tool_choice would force a call out of {alternatives} names and values that the tools list; "
            f"at most {MAX_ALTERNATIVES} are accepted: list fewer, or leave the choice to the model (auto)"
        )
    return calls.block_rule(f"({' | '.join(names)})", several=several), [*rules, *languages.lines]


def _grammar(root: str, rules: list[str]) -> str:
    return "\n".join([f"root ::= {root}", *rules, gbnf.RULES])


@functools.cache
def _thought() -> str:
    return "\n".join(gbnf.language(Then(_without(CLOSER), CLOSER), "thought"))


def _without(*tags: str) -> Not:
    """Any text that has none of *tags*, which consist of no characters that expressions give a meaning."""
    return Not(Expression("|".join(tags), Budget(1000)))
