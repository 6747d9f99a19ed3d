"""A program on a pseudo-terminal, with functions that type and read."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

import psutil

# A shell that leads a session gets the terminal that it opens, so that Ctrl-C reaches the program.
_ON_ITS_TERMINAL = ["/bin/sh", "-c", 'terminal=$1; shift; exec "$@" <"$terminal"', "sh"]
_ROWS = 50


class Terminal:
    """A context manager that runs *argv* in a terminal, and ends it when the block ends.

    Unless told otherwise it has so many *columns* that no line is wrapped.
    """

    def __init__(self, argv: Sequence[object], environment: Mapping[str, str], columns: int = 2000) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
        os.set_blocking(self._master, False)
        self.process = subprocess.Popen(
            [*_ON_ITS_TERMINAL, os.ttyname(slave), *map(str, argv)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(environment),
            start_new_session=True,
        )
        os.close(slave)
        self._unread = b""
        self._ended = False

    def press(self, text: str) -> None:
        """Press the keys of *text*, as fast as the program takes them."""
        left, deadline = text.encode(), time.monotonic() + 60
        while left:
            if self._select(deadline, [self._master]):
                left = left[os.write(self._master, left) :]

    def wait_until_idle(self) -> None:
        """Wait until the program reads: Python's `input` misses a signal that comes just before it reads."""
        deadline = time.monotonic() + 60
        while psutil.Process(self.process.pid).status() != psutil.STATUS_SLEEPING:
            assert time.monotonic() < deadline

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.wait_until_idle()
        self.press("\x03")

    def wait_for(self, text: str, within_s: float = 60) -> str:
        """The output after the last wait up to and including *text*, with its control characters."""
        expected, deadline = text.encode(), time.monotonic() + within_s
        while expected not in self._unread:
            assert not self._ended, f"no {text!r} in {self._unread!r}"
            self._select(deadline, [])
        before, _, self._unread = self._unread.partition(expected)
        return (before + expected).decode()

    def wait_for_end(self, within_s: float = 60) -> tuple[int, str]:
        """The program's exit status, and the rest of its output."""
        deadline = time.monotonic() + within_s
        while not self._ended:
            self._select(deadline, [])
        status = self.process.wait(max(0.1, deadline - time.monotonic()))
        return status, self._unread.decode()

    @property
    def edits_lines_itself(self) -> bool:
        """Whether the terminal is in a shell's mode: it echoes what is typed, and delivers whole lines."""
        flags = termios.tcgetattr(self._master)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)

    def _select(self, deadline: float, to_write: list[int]) -> list[int]:
        """Wait until there is output, and read it, or until input is accepted, and return that."""
        readable, writable, _ = select.select([self._master], to_write, [], max(0.0, deadline - time.monotonic()))
        assert readable or writable, f"nothing happened after {self._unread!r}"
        if readable:
            try:
                self._unread = (self._unread + os.read(self._master, 65536)).replace(b"\r\n", b"\n")
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                # Linux's error when no process has the terminal open any more.
                self._ended = True
        return writable

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
