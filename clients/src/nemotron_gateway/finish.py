"""How an answer ended, as a choice of a completion says it."""

from __future__ import annotations

from typing import Any

from nemotron_client import Finish


def finish_fields(finish: Finish) -> dict[str, Any]:
    """`finish_reason`, and what OpenAI's API has no field for: `stop_reason`, and where they apply, two more.

    `problems` is what was wrong with the answer, `thinking_cut` whether its budget ended the thinking.
    """
    fields: dict[str, Any] = {"finish_reason": finish.reason, "stop_reason": finish.stop_reason}
    if finish.problems:
        fields["problems"] = finish.problems
    if finish.thinking_cut:
        fields["thinking_cut"] = True
    return fields
