"""What a tool-call format is, and what its reader works with; the formats are the modules in `formats`.

A call is reported when it is whole: a block that turns out unreadable must come back as the text it is, and what was
sent cannot be taken back. Which calls are wanted, and what becomes of the text that is none, is `answer`'s business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from nemotron_triton.chat.source import Source, Wait

# Reading a block gives None, or what the text after its last call is: the code of what is wrong with it, or just text.
Problem: TypeAlias = str | None
TEXT = ""


@dataclass(frozen=True)
class FoundCall:
    """A whole call; *arguments_json* is valid JSON, and an object unless the model wrote something else.

    *repaired* says that the model's own JSON had to be set right for that.
    """

    name: str
    arguments_json: str
    repaired: bool = False


@dataclass(frozen=True)
class Block:
    """A block of calls while it is read. *parameters* has the schemas of the known functions, *found* takes each call.

    *skipped* takes the code of a call that is whole but of no use, and says whether the block may be read on.
    """

    source: Source
    parameters: Mapping[str, Any]
    found: Callable[[FoundCall], None]
    skipped: Callable[[str], bool]

    def unreadable(self) -> str:
        """The code for a block that ends in the wrong place."""
        return "truncated_tool_call" if self.source.ended and self.source.cut else "invalid_tool_call"


class CallFormat(ABC):
    """One way to write calls. Its module has it as `Format`, and the module's name is the format's.

    Any of `openers` begins a block: tags, or whatever else no other text begins with. A text is only held back while it
    could become one, so they are as long as is sure. `closers` are dropped where they stand behind a broken block.
    """

    openers: ClassVar[tuple[str, ...]]
    closers: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def read(self, block: Block, opener: str) -> Wait[Problem]:
        """Read the block whose *opener* was read last, up to what is no part of it."""

    @abstractmethod
    def block_rule(self, call: str, *, several: bool) -> str:
        """The grammar of a block with one *call*, or with *several*."""

    @abstractmethod
    def call_rules(self, name: str, function: Mapping[str, Any]) -> list[str]:
        """The rule *name*, a call of *function* (an OpenAI object), and the rules that it needs."""


def tidy(name: str) -> str:
    """*name* without the blanks and quotes around it; "" when it cannot be written as UTF-8."""
    name = name.strip().strip("\"'").strip()
    return "" if any("\ud800" <= char <= "\udfff" for char in name) else name
