"""The option that leaves the two models for direct calls out of a server."""

from __future__ import annotations

import click

text_models = click.option(
    "--no-text-models",
    "text_models",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Leave out preprocessing and postprocessing, which render prompts, count tokens and parse raw answers for "
    "callers who ask: no chat needs them, and each costs a process.",
)
