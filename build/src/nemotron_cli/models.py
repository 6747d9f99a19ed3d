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
    known = [profile(name) for name in profile_names()]
    if as_json:
        click.echo(json.dumps([asdict(each) for each in known], indent=2))
        return
    for each in known:
        mode = {True: "on", False: "off", None: "left to the model"}[each.thinking.default]
        click.echo(
            f"{each.name}\n  {each.repository}\n  prompt {each.prompt_format}, reasoning {each.reasoning_format}, "
            f"tool calls {each.tool_call_format}\n"
            f"  thinking {mode} unless asked for, context {each.context_tokens} tokens"
        )
