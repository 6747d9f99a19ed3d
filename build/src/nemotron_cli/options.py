"""Options that several commands share, each defined once, and headings for the help of a command with many.

What an option's default needs is imported when a command takes the option: `nemotron chat` has no serving packages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
PATH_OR_STDIN = click.Path(path_type=Path, allow_dash=True)

DEVICE = click.Choice(["auto", "cpu", "cuda"])


def names(*known: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """What the shell completes for an option that takes one of *known*, or several of them with commas between."""

    def complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in known if name.startswith(last)]

    return complete


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
jsonl = click.option("--jsonl", is_flag=True, help="Read requests from stdin, one JSON object a line, and answer each.")
max_seq_len = click.option(
    "--max-seq-len", type=int, help="Prompt and answer together, tokens. Default: the model's, at most 8192."
)
messages = click.option(
    "--messages", "messages_file", type=PATH_OR_STDIN, help="JSON file with earlier messages; - is stdin."
)
system = click.option("--system", help="Instructions for the whole conversation.")
tools = click.option("--tools", "tools_file", type=PATH, help="JSON file with OpenAI-shaped tools.")
text_models = click.option(
    "--no-text-models",
    "text_models",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Leave out preprocessing and postprocessing, which render prompts, count tokens and parse raw answers for "
    "callers who ask: no chat needs them, and each costs a process.",
)


def thinking(about: str) -> Callable[[Command], Command]:
    """Whether to think, as True or False; None is the model's default."""
    return click.option(
        "--thinking",
        type=click.Choice(["on", "off"]),
        callback=lambda _context, _option, value: None if value is None else value == "on",
        help=f"{about} Default: the model's.",
    )


def model(command: Command) -> Command:
    """The profile whose formats *command* uses."""
    from nemotron_triton.chat.profiles import DEFAULT_PROFILE, profile_names

    option = click.option(
        "--model",
        default=DEFAULT_PROFILE,
        show_default=True,
        shell_complete=names(*profile_names()),
        help="Profile or repository name.",
    )
    return option(command)


def endpoint(command: Command) -> Command:
    """The servers that *command* is a client of, as the client's own arguments but for the secret's file."""
    for option in reversed(
        (
            click.option("--url", help="gRPC endpoint, host:port. Default: $NEMOTRON_URL, else 127.0.0.1:8001."),
            click.option("--secret-file", type=PATH, help="File with the server's secret. Default: $NEMOTRON_SECRET."),
            click.option(
                "--root-ca",
                type=PATH,
                help="Use TLS; PEM file of who signed the server's certificate. Default: $NEMOTRON_ROOT_CA.",
            ),
            click.option("--client-cert", type=PATH, help="PEM file, for mutual TLS. Default: $NEMOTRON_CLIENT_CERT."),
            click.option("--client-key", type=PATH, help="PEM file: its key. Default: $NEMOTRON_CLIENT_KEY."),
        )
    ):
        command = option(command)
    return command


class SectionOption(click.Option):
    """An option that the help of a `SectionedCommand` shows under the heading *section*."""

    def __init__(self, *arguments: Any, section: str, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help lists the plain options first, then each section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)


def limits(command: Command) -> Command:
    """An option for every field of `Settings`."""
    from nemotron_triton.serving.settings import Settings

    return _of_fields(command, Settings, section="Limits")


def connections(command: Command) -> Command:
    """An option for every field of `Connections`."""
    from nemotron_triton.connections import Connections

    return _of_fields(command, Connections, section="Connections")


def _of_fields(command: Command, settings: Any, *, section: str) -> Command:
    """An option for every field of the dataclass *settings*, with its name, default, range and help."""
    for field in reversed(dataclasses.fields(settings)):
        about = field.metadata["about"]
        command = click.option(
            f"--{field.name.replace('_', '-')}",
            cls=SectionOption,
            section=section,
            type=click.IntRange(field.metadata["low"], field.metadata["high"]),
            metavar="N",
            default=field.default,
            show_default=True,
            help=f"{about[0].upper()}{about[1:]}.",
        )(command)
    return command
