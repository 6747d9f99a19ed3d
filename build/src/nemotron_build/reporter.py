"""How a build tells what it is doing."""

from __future__ import annotations


class Reporter:
    """Hears what a build is doing; this one does not listen."""

    def stage(self, name: str) -> None:
        """The build enters the stage *name*."""

    def progress(self, done: int, total: int) -> None:
        """*done* of *total* steps of the stage are finished."""

    def note(self, text: str) -> None:
        """Something worth a line: a stage that was done before, a wait, a warning."""
