"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nemotron_build.reporter import Reporter
from nemotron_cli.terminal import takes_escapes


class TerminalReporter(Reporter):
    """A context manager that shows the stages of a build as they run, on stderr: stdout is for results."""

    def __init__(self) -> None:
        self._console = Console(
            stderr=True, highlight=False, markup=False, color_system="auto" if takes_escapes() else None
        )
        # A dumb terminal cannot redraw a bar.
        self._redraws = self._console.is_terminal and not self._console.is_dumb_terminal
        self._stage = ""
        self._percent = 0
        self._bar = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._redraws,
        )
        self._task = self._bar.add_task("", total=1)

    def stage(self, name: str) -> None:
        """See `Reporter.stage`."""
        self._stage, self._percent = name, 0
        self._bar.update(self._task, description=name, completed=0, total=1)
        if not self._redraws:
            self._console.print(name)

    def progress(self, done: int, total: int) -> None:
        """See `Reporter.progress`; without a terminal, a line every 25 percent."""
        self._bar.update(self._task, completed=done, total=total)
        percent = 100 * done // total if total else 100
        if not self._redraws and percent >= self._percent + 25:
            self._percent = percent
            self._console.print(f"{self._stage}: {done} of {total}")

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self._console.print(text, soft_wrap=True)

    def __enter__(self) -> TerminalReporter:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
