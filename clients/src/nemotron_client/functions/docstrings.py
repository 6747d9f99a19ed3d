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
        """What can be parsed of *docstring*; what cannot is left out."""
        if not docstring or not docstring.strip():
            return cls()
        from docstring_parser import parse

        text = inspect.cleandoc(docstring)
        try:
            parsed = parse(text)
        except Exception:
            # Its parsers raise exceptions of many classes at broken sections.
            return cls(_line(text.split("\n\n")[0]))
        # The parser takes the second line of a summary for the description.
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
        """A class's own docstring; that which dataclasses make of the signature is none."""
        text = kind.__doc__ or ""
        return cls() if text.startswith(f"{kind.__name__}(") else cls.of(text)


def _line(text: str) -> str:
    return " ".join(text.split())
