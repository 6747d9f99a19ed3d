"""`nemotron models`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from nemotron_triton.chat.profiles import profile, profile_names


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print everything that is known of them as one JSON document.")
def command(as_json: bool) -> None:
    """List the models whose prompts, thinking and tool calls are known."""
    models = [profile(name) for name in profile_names()]
    if as_json:
        click.echo(json.dumps([asdict(model) for model in models], indent=2))
        return
    for model in models:
        mode = {True: "on", False: "off", None: "left to the model"}[model.thinking.default]
        click.echo(
            f"{model.name}\n  {model.repository}\n  prompt {model.prompt_format}, reasoning {model.reasoning_format}, "
            f"tool calls {model.tool_call_format}\n"
            f"  thinking {mode} unless asked for, context {model.context_tokens} tokens"
        )
