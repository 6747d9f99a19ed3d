"""The interface of a tool-call format, and what its reader works with; the formats are the modules in `formats`.

A call is reported once it is complete, because an event cannot be withdrawn and an unreadable block becomes text.
`answer` decides which calls count, and what happens with the text of a block that has none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from nemotron_triton.chat.source import Source, Wait

# Of a name, as OpenAI has it; declared names may be longer.
_MAX_NAME = 64

# What the text of a block behind its last call is: nothing (None), or a problem (its code).
Problem: TypeAlias = str | None


@dataclass(frozen=True)
class FoundCall:
    """A complete call; *arguments_json* is valid JSON, and an object unless the model wrote another value.

    *repaired* says that the model's own JSON was not valid.
    """

    name: str
    arguments_json: str
    repaired: bool = False


@dataclass(frozen=True)
class Block:
    """A block of calls while it is read. *parameters* has the schemas of the known functions, *found* takes each call.

    *skipped* takes the code of a call that is complete but unusable, and costs its neighbours nothing.
    """

    source: Source
    parameters: Mapping[str, Any]
    found: Callable[[FoundCall], None]
    skipped: Callable[[str], None]

    def unreadable(self) -> str:
        """The problem's code for a block that is not complete."""
        return "truncated_tool_call" if self.source.ended and self.source.cut else "invalid_tool_call"


class CallFormat(ABC):
    """One way to write calls. Its module has it as `Format`, and is called as the format is.

    Any of `openers` begins a block: a tag, or another text that no ordinary text begins with. Text is held back while
    it could become an opener. `closers` are dropped behind a broken block.
    """

    openers: ClassVar[tuple[str, ...]]
    closers: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def read(self, block: Block, opener: str) -> Wait[Problem]:
        """Read the block whose *opener* was read last, to its end."""

    @abstractmethod
    def block_rule(self, call: str, *, several: bool) -> str:
        """The grammar of a block with one call of the rule *call*, or *several*."""

    @abstractmethod
    def call_rules(self, name: str, function: Mapping[str, Any]) -> list[str]:
        """The rule *name* for a call of *function* (an OpenAI object), and the rules that it refers to."""


def longest_name(declared: Iterable[str]) -> int:
    """How many characters a name may have where these are *declared*, with the blanks and quotes around it."""
    return max((_MAX_NAME, *map(len, declared))) + 8


def tidy(name: str) -> str:
    """*name* without whitespace and quotes around it; "" when it cannot be written as UTF-8."""
    name = name.strip().strip("\"'").strip()
    return "" if any("\ud800" <= char <= "\udfff" for char in name) else name
