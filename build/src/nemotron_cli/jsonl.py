"""Requests on stdin, one JSON object a line, each answered with a line on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Set
from typing import Any

import click

from nemotron_triton.errors import RequestError, ServingError

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def answer_lines(fields: Set[str], answer: Answer) -> None:
    """Print each request's `id` with its *answer*, or with an `error`, which any key that is not in *fields* is."""
    for line in sys.stdin.buffer:
        if line.strip():
            click.echo(json.dumps(_answer(line, fields, answer)))


def _answer(line: bytes, fields: Set[str], answer: Answer) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"id": None, "error": f"this line is not JSON: {error}"}
    if not isinstance(request, dict):
        return {"id": None, "error": "this line is not a JSON object"}
    try:
        if unknown := sorted(request.keys() - fields):
            raise RequestError(f"unknown keys {', '.join(unknown)}; known: {', '.join(sorted(fields))}")
        result = answer(request)
    except ServingError as error:
        result = {"error": str(error)}
    return {"id": request.get("id")} | result
