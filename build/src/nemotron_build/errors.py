"""What a build can raise.

BuildError
├── CheckpointError     the checkpoint is missing, broken, or not what it says it is
├── UnsupportedError    this model, GPU or precision cannot be built; the message says what can
├── RefusedError        known parts that do not go together; it names the nearest that does
├── DoesNotFitError     the memory plan is larger than the GPU
├── OutputError         the bundle cannot be written where it was asked for
├── ToolError           another program failed, or is not there; its log is kept
└── VerificationError   what a tool made is not what it was asked to make
"""

from __future__ import annotations

from collections.abc import Mapping


class BuildError(Exception):
    """Base of every error a build raises on purpose; its text is one line, for a person."""


class CheckpointError(BuildError):
    """The checkpoint is missing, broken, or not what it says it is."""


class UnsupportedError(BuildError):
    """This model, GPU or precision cannot be built; the message says what can."""


class RefusedError(BuildError):
    """A GPU, model, precision and engine kind that do not go together.

    *suggestion* is the nearest combination that works, as the options to change: `{"--precision": "int8-sq"}`. It is
    empty only where nothing works.
    """

    def __init__(self, reason: str, suggestion: Mapping[str, str]) -> None:
        """Say *reason*, then *suggestion*."""
        self.reason = reason
        self.suggestion = dict(suggestion)
        remedy = " ".join(f"{option} {value}" for option, value in suggestion.items())
        super().__init__(f"{reason}; use {remedy}" if remedy else reason)


class DoesNotFitError(BuildError):
    """The memory plan is larger than the GPU; the message says what fits."""


class OutputError(BuildError):
    """The bundle cannot be written where it was asked for."""


class ToolError(BuildError):
    """Another program failed, or is not there; its log is kept."""


class VerificationError(BuildError):
    """What a tool made is not what it was asked to make."""
