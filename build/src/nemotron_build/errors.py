"""What a build can raise: a `BuildError`, of which all others are."""

from __future__ import annotations

from collections.abc import Mapping


class BuildError(Exception):
    """Base of every error a build raises on purpose; its text is one line, for a person."""


class SettingError(BuildError):
    """A setting is missing, unknown or out of range, as an option or in a --config file; the message says what is."""


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
