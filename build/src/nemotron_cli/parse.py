"""`nemotron parse`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from nemotron_cli import options
from nemotron_cli.files import read_json_list, read_text
from nemotron_cli.jsonl import answer_lines
from nemotron_client.events import ContentDelta, Event, Problem, ReasoningDelta, ToolCall, ToolCallDelta
from nemotron_triton.chat import reasoning
from nemotron_triton.chat.answer import AnswerParser, answer_rules, parse_whole
from nemotron_triton.chat.conversation import read_choice, read_functions
from nemotron_triton.chat.profiles import profile
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.arguments import misfits
from nemotron_triton.serving.responses import call_delta

_FIELDS = {
    "id", "model", "text", "chunks", "thinking", "think_prefilled", "tools", "tool_choice", "parallel_tool_calls",
    "engine_finish", "stream_tool_calls",
}  # fmt: skip


@click.command("parse")
@click.argument("file", required=False, type=options.PATH_OR_STDIN)
@options.model
@options.thinking("What was asked for.")
@click.option("--tools", "tools_file", type=options.PATH, help="JSON file; without it any call counts.")
@click.option("--cut", is_flag=True, help="The token limit ended the answer.")
@click.option("--deltas", is_flag=True, help="Also give the stream of deltas that the answer becomes.")
@options.jsonl
def command(
    file: Path | None, model: str, thinking: bool | None, tools_file: Path | None, cut: bool, deltas: bool, jsonl: bool
) -> None:
    """Take the raw answer in FILE (- is stdin) apart: reasoning, content, tool calls.

    With --jsonl each line of stdin holds text, or chunks (a list of strings, as they were streamed), and if wanted id,
    model, thinking, think_prefilled, tools, tool_choice, parallel_tool_calls, engine_finish (stop or length) and
    stream_tool_calls (of chunks); each line of stdout is the result, with the code of what was wrong with the answer as
    its error.
    """
    if jsonl:
        answer_lines(_FIELDS, lambda request: _parsed(request, model, deltas=deltas))
        return
    if file is None:
        raise click.UsageError("give a FILE with a raw answer (- is stdin), or --jsonl")
    request = {
        "text": read_text(file),
        "thinking": thinking,
        "engine_finish": "length" if cut else "stop",
    } | ({"tools": read_json_list(tools_file, "tools")} if tools_file else {})
    click.echo(json.dumps(_parsed(request, model, deltas=deltas), ensure_ascii=False, indent=2))


def _parsed(request: Mapping[str, Any], model: str, *, deltas: bool) -> dict[str, Any]:
    """The result of one request, which has keys of `_FIELDS` only."""
    text, chunks = request.get("text"), request.get("chunks")
    if not isinstance(text, str) and not (isinstance(chunks, list) and all(isinstance(chunk, str) for chunk in chunks)):
        raise RequestError("give text, a string, or chunks, a list of strings")
    finish = request.get("engine_finish", "stop")
    if finish not in ("stop", "length"):
        raise RequestError(f"engine_finish is {finish!r}; it must be stop or length")
    model_profile, thinking = profile(request.get("model") or model), request.get("thinking")
    if thinking is None:
        thinking = model_profile.thinking.default
    functions = read_functions(request["tools"]) if "tools" in request else None
    prefilled = request.get("think_prefilled")
    prompt = None if prefilled is None else reasoning.OPENER if prefilled else ""
    rules = answer_rules(
        model_profile,
        functions,
        begins=reasoning.begins(model_profile.reasoning_format, thinking=bool(thinking), prompt=prompt),
        choice=read_choice(request.get("tool_choice"), functions or ()),
        parallel=request.get("parallel_tool_calls") is not False,
    )
    cut, streams = finish == "length", bool(request.get("stream_tool_calls")) and isinstance(chunks, list)
    if isinstance(chunks, list):
        parser = AnswerParser(rules, stream_calls=streams)
        events = [event for chunk in chunks for event in parser.feed(chunk)] + parser.finish(cut=cut)
        problems = parser.problems
    else:
        events, problems = parse_whole(str(text), rules, cut=cut)
    calls = [event for event in events if isinstance(event, ToolCall)]
    result = _result(events, [*problems, *misfits(calls, rules.functions or {})], finish)
    # All of a call is in its pieces.
    sent = [event for event in events if not (streams and isinstance(event, ToolCall))]
    return result | {"deltas": [{"role": "assistant"}, *map(_delta, sent)]} if deltas else result


def _result(events: Sequence[Event], problems: Iterable[Problem], finish: str) -> dict[str, Any]:
    calls = [event.as_openai() for event in events if isinstance(event, ToolCall)]
    result: dict[str, Any] = {
        "reasoning": "".join(event.text for event in events if isinstance(event, ReasoningDelta)) or None,
        "content": "".join(event.text for event in events if isinstance(event, ContentDelta)) or None,
        "tool_calls": calls,
        "finish_reason": "tool_calls" if calls and finish == "stop" else finish,
    }
    for problem in problems:
        result.setdefault("error", problem.code)
    return result


def _delta(event: Event) -> dict[str, Any]:
    """*event* as the delta of an OpenAI stream chunk."""
    if isinstance(event, ReasoningDelta):
        return {"reasoning_content": event.text}
    if isinstance(event, ContentDelta):
        return {"content": event.text}
    assert isinstance(event, ToolCall | ToolCallDelta)
    return {"tool_calls": [call_delta(event)]}
