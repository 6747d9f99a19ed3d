"""Run the conformance cases against a command: `python tests/conformance/run.py nemotron parse --jsonl --deltas`.

The command reads requests as lines of JSON on stdin and writes a line for each; README.md beside this file describes
both. Standard library only, so that it can be taken along to test any other parser.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CASES = Path(__file__).with_name("cases.json")
_TAG = re.compile(r"</?(?:think|TOOLCALL|tool_call|function|parameter)\b")


def requests(cases: list[dict[str, Any]], tools: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every case with every way to send it: whole, one character at a time, in the chunks it names."""
    for case in cases:
        shared = {
            key: case[key]
            for key in ("model", "thinking", "think_prefilled", "tool_choice", "parallel_tool_calls", "engine_finish")
        }
        shared["tools"] = [tools[name] for name in case["tools"]]
        ways: dict[str, dict[str, Any]] = {"whole": {"text": case["text"]}}
        if not case.get("nonstream_only"):
            ways["characters"] = {"chunks": list(case["text"])}
            if "chunks" in case:
                ways["chunks"] = {"chunks": case["chunks"]}
        for way, text in ways.items():
            yield case, {"id": f"{case['id']} ({way})"} | shared | text


def complaints(case: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """The mistakes in the *result* for a case; none when it passes."""
    if "reasoning" not in result:
        return [f"no result: {result.get('error')}"]
    errors = []
    if not any(_matches(result, answer) for answer in (case["expected"], *case.get("accept_also", ()))):
        errors.append(f"got {_shown(result)}, expected {_shown(case['expected'])}")
    if "deltas" in result:
        errors += _stream_complaints(case, result)
    return errors


def _matches(result: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    texts = all((result[key] or "").strip() == (answer[key] or "").strip() for key in ("reasoning", "content"))
    calls = [(call["function"]["name"], _arguments(call)) for call in result["tool_calls"]]
    expected = [(call["name"], call["arguments"]) for call in answer["tool_calls"]]
    return texts and _same(calls, expected) and result["finish_reason"] == answer["finish"]


def _same(a: Any, b: Any) -> bool:
    """Equality of JSON values, in which true is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _arguments(call: Mapping[str, Any]) -> Any:
    try:
        return json.loads(call["function"]["arguments"])
    except ValueError:
        return call["function"]["arguments"]


def _stream_complaints(case: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    errors = []
    joined: dict[str, str] = {"reasoning_content": "", "content": ""}
    calls: list[dict[str, Any]] = []
    for delta in result["deltas"]:
        for key in joined:
            text = delta.get(key) or ""
            joined[key] += text
            if _TAG.search(text) and not _TAG.search(case["expected"][key.removesuffix("_content")] or ""):
                errors.append(f"a tag shows in {key}: {text!r}")
        if delta.get("reasoning_content") and (joined["content"] or calls):
            errors.append("reasoning after content or calls")
        for piece in delta.get("tool_calls", ()):
            if piece["index"] == len(calls):
                calls.append({"id": piece["id"], "name": piece["function"]["name"], "arguments": ""})
            elif piece["index"] != len(calls) - 1 or "id" in piece or "name" in piece["function"]:
                errors.append(f"a call's delta out of order: {piece}")
            calls[piece["index"]]["arguments"] += piece["function"].get("arguments", "")
    for key, text in joined.items():
        if text != (result[key.removesuffix("_content") if key != "content" else key] or ""):
            errors.append(f"the deltas of {key} join to {text!r}")
    if [call["arguments"] for call in calls] != [call["function"]["arguments"] for call in result["tool_calls"]]:
        errors.append("the deltas of the calls join to something else")
    if len({call["id"] for call in calls}) != len(calls):
        errors.append("two calls share an id")
    return errors


def _shown(result: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in result.items() if key not in ("id", "deltas")}, ensure_ascii=False)


def main() -> int:
    """Run, print what fails, return the exit status."""
    command = sys.argv[1:]
    if not command:
        sys.stderr.write("usage: run.py COMMAND [ARGUMENT ...], a command with the protocol of README.md\n")
        return 2
    stored = json.loads(CASES.read_text(encoding="utf-8"))
    sent = list(requests(stored["cases"], stored["tools"]))
    lines = "".join(json.dumps(request) + "\n" for _, request in sent)
    ran = subprocess.run(command, input=lines, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    results = [json.loads(line) for line in ran.stdout.splitlines()]
    if ran.returncode or [result.get("id") for result in results] != [request["id"] for _, request in sent]:
        sys.stderr.write(
            f"{command[0]} ended with {ran.returncode} and answered {len(results)} of {len(sent)} requests\n"
        )
        return 1
    passed = failed = disputed = 0
    for (case, request), result in zip(sent, results, strict=True):
        errors = complaints(case, result)
        passed += not errors
        failed += bool(errors) and not case.get("contentious")
        disputed += bool(errors) and bool(case.get("contentious"))
        for complaint in errors:
            mark = "contentious, " if case.get("contentious") else ""
            sys.stdout.write(f"{mark}{request['id']}: {complaint}\n  {case['why']}\n")
    sys.stdout.write(f"{passed} passed, {failed} failed, {disputed} contentious ones differ\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
