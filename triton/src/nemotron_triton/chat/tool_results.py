"""Which tool result answers which call: by the call's id, or by position where no result has one.

Prompts tell it only by the order of the results, so they are put in the order of the calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from nemotron_triton.errors import RequestError


def in_call_order(call_ids: Sequence[str], result_ids: Sequence[str], first: int) -> list[int]:
    """The places of the results in the order of the calls that they answer; "" is no id.

    The calls are those of one assistant message, the results the tool messages behind it, the *first* of which has that
    index among the messages. `RequestError` names the message that answers no call, or a call that has a result
    already, and the last one where some calls have none. Behind a message without calls, results without ids stay as
    they are.
    """
    have_ids = any(result_ids)
    if not call_ids and not have_ids:
        return list(range(len(result_ids)))
    if have_ids and "" in result_ids:
        raise RequestError(
            f"messages[{first + result_ids.index('')}] has no tool_call_id, and other results beside it have one; "
            "give it to all of them, or to none"
        )
    # Some clients give several calls one id; then their order tells.
    waiting: dict[str, deque[int]] = {}
    for call, call_id in enumerate(call_ids):
        waiting.setdefault(call_id if have_ids else "", deque()).append(call)
    answers: dict[int, int] = {}
    for place, result_id in enumerate(result_ids):
        if not (calls := waiting.get(result_id)):
            raise RequestError(f"messages[{first + place}] {_answers_none(result_id, calls, len(call_ids))}")
        answers[calls.popleft()] = place
    if len(answers) < len(call_ids):
        raise RequestError(
            f"messages[{first + len(result_ids) - 1}] is the last of {len(result_ids)} tool results, and the assistant "
            f"message before them has {len(call_ids)} calls; give a result for each, or for none"
        )
    return [answers[call] for call in sorted(answers)]


def _answers_none(result_id: str, calls: deque[int] | None, number: int) -> str:
    if not result_id:
        return f"is one tool result too many: the assistant message before it has {number} calls"
    found = (
        "that call has a result already" if calls is not None else "the message before the results made no such call"
    )
    return f"has the tool_call_id {result_id[:80]!r}, and {found}"
