"""Options under headings, for a command whose help would be one long list otherwise."""

from __future__ import annotations

from typing import Any

import click


class SectionOption(click.Option):
    """An option that the help shows under the heading *section*."""

    def __init__(self, *arguments: Any, section: str, **attributes: Any) -> None:
        """As `click.Option`, and *section*."""
        super().__init__(*arguments, **attributes)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose plain options come first, then each section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write them."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)
