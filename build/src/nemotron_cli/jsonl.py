"""Requests on stdin, one JSON object a line, each answered with a line on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Set
from typing import Any

import click

from nemotron_triton.chat import exact_json
from nemotron_triton.errors import RequestError, ServingError

Answer = Callable[[Mapping[str, Any]], dict[str, Any]]


def answer_lines(fields: Set[str], answer: Answer, read: Callable[[str], Any] = json.loads) -> None:
    """Print each request's `id` with its *answer*, or with an `error`, which any key that is not in *fields* is.

    *read* makes a request of its JSON.
    """
    for line in sys.stdin.buffer:
        if line.strip():
            click.echo(exact_json.write(_answer(line, fields, answer, read), ensure_ascii=True))


def _answer(line: bytes, fields: Set[str], answer: Answer, read: Callable[[str], Any]) -> dict[str, Any]:
    try:
        request = read(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return {"id": None, "error": f"this line is not JSON: {error}"}
    if not isinstance(request, Mapping):
        return {"id": None, "error": "this line is not a JSON object"}
    try:
        if unknown := sorted(request.keys() - fields):
            raise RequestError(f"unknown keys {', '.join(unknown)}; known: {', '.join(sorted(fields))}")
        result = answer(request)
    except ServingError as error:
        result = {"error": str(error)}
    return {"id": request.get("id")} | result
