"""`nemotron parse`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from nemotron_cli.files import json_lines, read_json_list, read_text
from nemotron_client.events import ContentDelta, Event, Problem, ReasoningDelta, ToolCall
from nemotron_triton.chat import reasoning
from nemotron_triton.chat.answer import AnswerParser, answer_rules, parse_whole
from nemotron_triton.chat.conversation import read_choice, read_functions
from nemotron_triton.chat.profiles import DEFAULT_PROFILE, profile
from nemotron_triton.errors import RequestError, ServingError

_FIELDS = {
    "id", "model", "text", "chunks", "thinking", "think_prefilled", "tools", "tool_choice", "parallel_tool_calls",
    "engine_finish",
}  # fmt: skip


@click.command("parse")
@click.argument("file", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--model", default=DEFAULT_PROFILE, show_default=True, help="Profile or repository name.")
@click.option("--thinking", type=click.Choice(["on", "off"]), help="What was asked for. Default: the model's.")
@click.option("--tools", "tools_file", type=click.Path(path_type=Path), help="JSON file; without it any call counts.")
@click.option("--cut", is_flag=True, help="The token limit ended the answer.")
@click.option("--deltas", is_flag=True, help="Also give the stream of deltas that the answer becomes.")
@click.option("--jsonl", is_flag=True, help="Read requests from stdin, one JSON object a line, and answer each.")
def command(
    file: Path | None, model: str, thinking: str | None, tools_file: Path | None, cut: bool, deltas: bool, jsonl: bool
) -> None:
    """Take the raw answer in FILE (- is stdin) apart: reasoning, content, tool calls.

    With --jsonl each line of stdin holds text, or chunks (a list of strings, as they were streamed), and if wanted id,
    model, thinking, think_prefilled, tools, tool_choice, parallel_tool_calls and engine_finish (stop or length); each
    line of stdout is the result, with the code of what was wrong with the answer as its error.
    """
    if jsonl:
        for request in json_lines():
            click.echo(json.dumps({"id": request.get("id")} | _answer(request, model, deltas=deltas)))
        return
    if file is None:
        raise click.UsageError("give a FILE with a raw answer (- is stdin), or --jsonl")
    request = {
        "text": read_text(file),
        "thinking": None if thinking is None else thinking == "on",
        "engine_finish": "length" if cut else "stop",
    } | ({"tools": read_json_list(tools_file, "tools")} if tools_file else {})
    result = parse(request, model, deltas=deltas)
    click.echo(json.dumps(result, ensure_ascii=False, indent=2))


def _answer(request: Mapping[str, Any], model: str, *, deltas: bool) -> dict[str, Any]:
    try:
        return parse(request, model, deltas=deltas)
    except ServingError as error:
        return {"error": str(error)}


def parse(request: Mapping[str, Any], model: str, *, deltas: bool) -> dict[str, Any]:
    """The answer to one request of the `parse --jsonl` protocol; `RequestError` or `ProfileError` when it is wrong."""
    if "error" in request and request.keys() <= {"id", "error"}:
        raise RequestError(request["error"])
    if unknown := sorted(request.keys() - _FIELDS):
        raise RequestError(f"unknown keys {', '.join(unknown)}; known: {', '.join(sorted(_FIELDS))}")
    text, chunks = request.get("text"), request.get("chunks")
    if not isinstance(text, str) and not (isinstance(chunks, list) and all(isinstance(each, str) for each in chunks)):
        raise RequestError("give text, a string, or chunks, a list of strings")
    finish = request.get("engine_finish", "stop")
    if finish not in ("stop", "length"):
        raise RequestError(f"engine_finish is {finish!r}; it must be stop or length")
    known, asked = profile(request.get("model") or model), request.get("thinking")
    thinking = bool(known.thinking.default if asked is None else asked)
    functions = read_functions(request["tools"]) if "tools" in request else None
    prefilled = request.get("think_prefilled")
    prompt = None if prefilled is None else reasoning.OPENER if prefilled else ""
    rules = answer_rules(
        known,
        functions,
        begins=reasoning.begins(known.reasoning_format, thinking=thinking, prompt=prompt),
        choice=read_choice(request.get("tool_choice"), functions or ()),
        parallel=request.get("parallel_tool_calls") is not False,
    )
    cut = finish == "length"
    if isinstance(chunks, list):
        parser = AnswerParser(rules)
        events = [event for chunk in chunks for event in parser.feed(chunk)] + parser.finish(cut=cut)
        problems = parser.problems
    else:
        events, problems = parse_whole(str(text), rules, cut=cut)
    return _result(events, problems, finish) | (
        {"deltas": [{"role": "assistant"}, *map(_delta, events)]} if deltas else {}
    )


def _result(events: Iterable[Event], problems: Iterable[Problem], finish: str) -> dict[str, Any]:
    events = list(events)
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
    assert isinstance(event, ToolCall)
    return {"tool_calls": [event.as_delta()]}
