"""What a build can raise.

BuildError
├── CheckpointError     the checkpoint is missing, broken, or not what it says it is
├── UnsupportedError    this model, GPU or precision cannot be built; the message says what can
└── OutputError         the bundle cannot be written where it was asked for
"""


class BuildError(Exception):
    """Base of every error a build raises on purpose; its text is one line, for a person."""


class CheckpointError(BuildError):
    """The checkpoint is missing, broken, or not what it says it is."""


class UnsupportedError(BuildError):
    """This model, GPU or precision cannot be built; the message says what can."""


class OutputError(BuildError):
    """The bundle cannot be written where it was asked for."""
