"""Progress of a build, for whoever shows it."""

from __future__ import annotations


class Reporter:
    """What a build calls as it goes on; these methods do nothing."""

    def stage(self, name: str) -> None:
        """The build enters the stage *name*."""

    def progress(self, done: int, total: int) -> None:
        """*done* of *total* steps of the stage are finished."""

    def note(self, text: str) -> None:
        """Something worth a line: a stage that was done before, a wait, a warning."""
