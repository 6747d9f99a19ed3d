"""What a docstring says to the model: the summary, and a text for each parameter (Google, Sphinx or numpy style)."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Documentation:
    """The summary in one line, and the texts by parameter name."""

    summary: str = ""
    parameters: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, docstring: str | None) -> Documentation:
        """What can be read of *docstring*; what cannot is left out, for it is no reason to stop a program."""
        if not docstring or not docstring.strip():
            return cls()
        from docstring_parser import parse

        text = inspect.cleandoc(docstring)
        try:
            parsed = parse(text)
        except Exception:
            # Its readers stumble over broken sections, each with an exception of its own.
            return cls(_line(text.split("\n\n")[0]))
        # A summary may go on in a second line, which the parser counts to the description.
        more = "" if parsed.blank_after_short_description else (parsed.long_description or "").split("\n\n")[0]
        return cls(
            _line(f"{parsed.short_description or ''} {more}"),
            {
                name.strip().lstrip("*"): _line(parameter.description)
                for parameter in parsed.params
                for name in parameter.arg_name.split(",")
                if parameter.description
            },
        )

    @classmethod
    def of_class(cls, kind: type) -> Documentation:
        """What a class says of itself; what a dataclass says unasked is its signature."""
        text = kind.__doc__ or ""
        return cls() if text.startswith(f"{kind.__name__}(") else cls.of(text)


def _line(text: str) -> str:
    return " ".join(text.split())
