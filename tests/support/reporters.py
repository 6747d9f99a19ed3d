"""Reporters for tests of builds."""

from __future__ import annotations

from nemotron_build.reporter import Reporter


class Heard(Reporter):
    """Keeps the stages that ran and the notes."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def note(self, text: str) -> None:
        self.notes.append(text)
