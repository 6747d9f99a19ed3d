"""Arguments of calls against the schemas of their functions, by the checks that the client makes of them.

Schemas that are none, or that could not be checked in bounded time, are not looked at, nor arguments past the time.
It may take seconds and belongs into a thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nemotron_client.events import Problem, ToolCall

# Of all calls of an answer; one check may take a little longer.
_CHECKING_S = 2.0


def misfits(calls: Iterable[ToolCall], parameters: Mapping[str, Any]) -> Iterator[Problem]:
    """A problem for each of *calls* whose arguments, an object, break the schema in *parameters* of its function."""
    from nemotron_client.functions.shapes import Misfit
    from nemotron_client.functions.validation import BadSchema, Validation

    begin_s = time.monotonic()
    for call in calls:
        schema = parameters.get(call.name)
        # `nullable`, which is of OpenAPI, allows what JSON Schema does not.
        if not isinstance(schema, Mapping) or "nullable" in (text := json.dumps(schema)):
            continue
        try:
            arguments = json.loads(call.arguments_json)
        except (ValueError, RecursionError):
            # Numbers of thousands of digits are JSON, but none that Python reads.
            continue
        if not isinstance(arguments, dict) or time.monotonic() - begin_s > _CHECKING_S:
            continue
        try:
            Validation.of(text).check(arguments)
        except BadSchema:
            continue
        except Misfit as error:
            # One with a cause is about the check.
            if error.__cause__ is None:
                yield Problem(code="invalid_arguments", function=call.name)
