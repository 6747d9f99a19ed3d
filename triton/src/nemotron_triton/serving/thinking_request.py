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
    """How to render a conversation; `thinking` is as the tensor has it, or an effort, or a budget of 0.

    `RequestError` where they contradict each other.
    """
    options = render_options(values.get(wire.THINKING), json_value(values, wire.CHAT_TEMPLATE_KWARGS))
    options = replace(options, continue_final_message=values.get(wire.CONTINUE_FINAL_MESSAGE, False))
    if off := _switched_off(values, options):
        if options.thinking:
            raise RequestError(f"{off}, and {wire.THINKING} is true; leave one of them out")
        return replace(options, thinking=False)
    effort = values.get(wire.REASONING_EFFORT)
    if effort and options.thinking is False:
        raise RequestError(f"{wire.REASONING_EFFORT} is {effort}, and {wire.THINKING} is false; leave one of them out")
    return replace(options, thinking=True) if effort else options


def read_max_thinking_tokens(values: Values, options: RenderOptions) -> int | None:
    """The budget in tokens, None where there is none; *options* are those of `read_render_options`."""
    return min((tokens for _, _, tokens in _budgets(values, options.template_kwargs)), default=None)


def _switched_off(values: Values, options: RenderOptions) -> str:
    """What switches thinking off, if anything does."""
    budgets = _budgets(values, options.template_kwargs)
    return next((f"{name} is {value}" for name, value, tokens in budgets if tokens == 0), "")


def _budgets(values: Values, template_kwargs: Mapping[str, Any]) -> list[tuple[str, Any, int]]:
    """Each budget that was given: its name, its value, and that in tokens; `RequestError` says what it may hold."""
    budgets: list[tuple[str, Any, int]] = []
    if wire.MAX_THINKING_TOKENS in values:
        tokens = integer(values, wire.MAX_THINKING_TOKENS, 0, 0)
        budgets.append((wire.MAX_THINKING_TOKENS.name, tokens, tokens))
    if (effort := values.get(wire.REASONING_EFFORT)) is not None:
        if effort not in EFFORTS:
            raise RequestError(f"{wire.REASONING_EFFORT} is {shown(effort)}; it must be one of {', '.join(EFFORTS)}")
        budgets.append((wire.REASONING_EFFORT.name, effort, EFFORTS[effort]))
    budget = template_kwargs.get(_OPTION)
    if budget is not None and budget != -1:
        if not isinstance(budget, int) or isinstance(budget, bool) or budget < 0:
            raise RequestError(
                f"{wire.CHAT_TEMPLATE_KWARGS}.{_OPTION} is {shown(budget)}; it must be a whole number of tokens, or -1 "
                "for no budget"
            )
        budgets.append((f"{wire.CHAT_TEMPLATE_KWARGS}.{_OPTION}", budget, budget))
    return budgets
