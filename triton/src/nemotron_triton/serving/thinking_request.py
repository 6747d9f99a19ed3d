"""Whether and how far to think, read from the tensors of a request.

A budget has three spellings: tokens, an effort, and the template option `reasoning_budget`, which Nemotron 3's template
also writes into the prompt. Of several the smallest holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nemotron_client import wire
from nemotron_triton.chat.conversation import shown
from nemotron_triton.chat.render import RenderOptions, render_options
from nemotron_triton.errors import RequestError
from nemotron_triton.serving.values import Values, integer, json_value

# Tokens.
EFFORTS = {"none": 0, "minimal": 256, "low": 1024, "medium": 4096, "high": 16_384}
_OPTION = "reasoning_budget"


def read_render_options(values: Values) -> RenderOptions:
    """How to render: `chat_template_kwargs`, and thinking as `thinking` has it, or an effort, or a budget of 0.

    `RequestError` where they contradict each other.
    """
    options = render_options(values.get(wire.THINKING), json_value(values, wire.CHAT_TEMPLATE_KWARGS))
    budgets = _budgets(values, options.template_kwargs)
    effort = wire.REASONING_EFFORT in values
    if off := next((name for name, tokens in budgets.items() if tokens == 0), None):
        if options.thinking:
            raise RequestError(f"{off} asks for no thinking, and {wire.THINKING} is true; leave one of them out")
        return replace(options, thinking=False)
    if effort and options.thinking is False:
        raise RequestError(
            f"{wire.REASONING_EFFORT} is {values[wire.REASONING_EFFORT]}, and {wire.THINKING} is false; leave one of "
            "them out"
        )
    return replace(options, thinking=True) if effort else options


def read_max_thinking_tokens(values: Values, options: RenderOptions) -> int | None:
    """The budget, in tokens; None where there is none."""
    return min(_budgets(values, options.template_kwargs).values(), default=None)


def _budgets(values: Values, template_kwargs: Mapping[str, Any]) -> dict[str, int]:
    """Each budget that was given by its name; `RequestError` says what one may hold."""
    budgets: dict[str, int] = {}
    if wire.MAX_THINKING_TOKENS in values:
        budgets[f"{wire.MAX_THINKING_TOKENS} 0"] = integer(values, wire.MAX_THINKING_TOKENS, 0, 0)
    if (effort := values.get(wire.REASONING_EFFORT)) is not None:
        if effort not in EFFORTS:
            raise RequestError(f"{wire.REASONING_EFFORT} is {shown(effort)}; it must be one of {', '.join(EFFORTS)}")
        budgets[f"{wire.REASONING_EFFORT} none"] = EFFORTS[effort]
    budget = template_kwargs.get(_OPTION)
    if budget is not None and budget != -1:
        if not isinstance(budget, int) or isinstance(budget, bool) or budget < 0:
            raise RequestError(
                f"{wire.CHAT_TEMPLATE_KWARGS}.{_OPTION} is {shown(budget)}; it must be a whole number of tokens, or -1 "
                "for no budget"
            )
        budgets[f"{wire.CHAT_TEMPLATE_KWARGS}.{_OPTION} 0"] = budget
    return budgets
