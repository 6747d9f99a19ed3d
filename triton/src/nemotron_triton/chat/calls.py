"""The interface of a tool-call format, and what its reader works with; the formats are the modules in `formats`.

A call is reported once it is complete, because an event cannot be withdrawn and an unreadable block becomes text; only
where a caller wants arguments as they are written does it begin before.
`answer` decides which calls count, and what happens with the text of a block that has none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from nemotron_triton.chat.schema_scalars import Languages
from nemotron_triton.chat.source import Source, Wait
from nemotron_triton.chat.written import Written

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

    *skipped* takes the code of a call that is complete but unusable, and costs its neighbours nothing. *begin* takes
    the name of a call whose arguments begin, and says where to write them if they are to be sent as they come; it is
    None where none are.
    """

    source: Source
    parameters: Mapping[str, Any]
    found: Callable[[FoundCall], None]
    skipped: Callable[[str], None]
    begin: Callable[[str], Written | None] | None = None

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
    def block_rule(self, call: str, *, several: int) -> str:
        """The grammar of a block with up to *several* calls of the rule *call*."""

    @abstractmethod
    def call_rules(self, name: str, function: Mapping[str, Any], languages: Languages) -> list[str]:
        """The rule *name* for a call of *function* (an OpenAI object), and the rules that it refers to.

        Those of strings and numbers are collected in *languages*.
        """
