"""One option for every setting of a served model: name, default, range and help are the setting's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import click

from nemotron_cli.sections import SectionOption
from nemotron_triton.serving.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])


def limits(command: Command) -> Command:
    """Give *command* the options; it takes their values as keywords, and `Settings(**values)` is what they mean."""
    for setting in reversed(dataclasses.fields(Settings)):
        command = click.option(
            f"--{setting.name.replace('_', '-')}",
            setting.name,
            cls=SectionOption,
            section="Limits",
            type=click.IntRange(setting.metadata["low"], setting.metadata["high"]),
            metavar="N",
            default=setting.default,
            show_default=True,
            help=f"{setting.metadata['about'][0].upper()}{setting.metadata['about'][1:]}.",
        )(command)
    return command
