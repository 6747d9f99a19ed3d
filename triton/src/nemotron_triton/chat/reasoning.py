"""Thinking in a model's text: its two tags, and how an answer begins.

A profile's reasoning format says who opens the think block. Where thinking ends in a stream is `answer`'s business.
"""

from __future__ import annotations

from typing import Literal

OPENER, CLOSER = "<think>", "</think>"
# What an answer begins with: no thinking, or a think block that the model opens or that the prompt has opened.
Thinking = Literal["none", "model opens", "opened"]
# The reasoning formats that a profile can name: how an answer begins when the model is to think.
FORMATS: dict[str, Thinking] = {"think_tags_model_opens": "model opens", "think_tags_prompt_opens": "opened"}


def begins(reasoning_format: str, *, thinking: bool, prompt: str | None = None, continued: str = "") -> Thinking:
    """How the answer to *prompt* begins; None stands for whatever prompt the model's own template writes.

    *continued* is the beginning of the answer that the prompt ends with.
    """
    if continued:
        return "opened" if continued.rfind(OPENER) > continued.rfind(CLOSER) else "none"
    if prompt is None:
        return FORMATS[reasoning_format] if thinking else "none"
    if prompt.rstrip().endswith((OPENER, CLOSER)):
        return "opened" if prompt.rstrip().endswith(OPENER) else "none"
    return "model opens" if thinking else "none"


def rest_of_closer(text: str) -> str:
    """What completes the closer that *text* ends within; the whole closer where it ends within none."""
    begun = next(size for size in range(len(CLOSER) - 1, -1, -1) if text.endswith(CLOSER[:size]))
    return CLOSER[begun:]


def written(thought: str, beginning: Thinking) -> str:
    """*thought* as a model writes it before its answer."""
    opener = "" if beginning == "opened" else f"{OPENER}\n"
    return f"{opener}{thought}\n{CLOSER}\n\n"
