"""The guardian: a process that ends a server, whole, when a part of it dies, and removes what it leaves.

It watches `nemotron serve` where there is one, tritonserver, and the stub that holds the engine. tritonserver before
26.04 reports that it is ready although a stub is dead, and when `nemotron serve` is killed under load it hangs in its
exit for ever (both seen with 2.51). `guard.py` starts it, with a pipe from the stub as its standard input, whose last
line says how to take the stub's end: after `serving` it is a death, before that and after `done` it is not.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemotron_triton.server_lock import ServerLock

SERVING, DONE = b"serving\n", b"done\n"
# Enough for an orderly end; the requests of a dead stub would keep tritonserver for its whole exit timeout.
_GRACE_S = 1.0
# A process that a driver holds in the kernel may end much later; the next start collects what it leaves.
_PATIENCE_S = 30.0
_LOOK_S = 0.05
# The stub has left in good order: tritonserver ends, which takes no longer, or another stub has a guardian of its own.
_RETIREMENT_S = 60.0


@dataclass(frozen=True)
class Watched:
    """A process, and a file descriptor of it, which unlike the number cannot come to mean another process."""

    pid: int
    descriptor: int

    @classmethod
    def open(cls, pid: int) -> Watched:
        """Process *pid*; `OSError` where there is none."""
        return cls(pid, os.pidfd_open(pid))

    @classmethod
    def parse(cls, text: str) -> Watched:
        """What `str` made of one."""
        pid, descriptor = map(int, text.split(":"))
        return cls(pid, descriptor)

    def __str__(self) -> str:
        """As an argument of the guardian."""
        return f"{self.pid}:{self.descriptor}"

    def is_dead(self, wait_s: float = 0.0) -> bool:
        """Whether it has ended, at the latest after *wait_s*."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(wait_s * 1000))

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)


class Guardian:
    """Watches until there is nothing left to guard."""

    def __init__(self, lock: ServerLock, model: Watched, tritonserver: Watched, serve: Watched | None) -> None:
        self._lock = lock
        self._model = model
        self._tritonserver = tritonserver
        self._serve = serve
        self._last_word = b""
        try:
            self._session = os.getsid(tritonserver.pid)
        except ProcessLookupError:
            self._session = tritonserver.pid

    def run(self) -> None:
        """Watch, and end the rest when a part dies."""
        if (reason := self._watch()) is not None:
            if reason:
                _say(reason)
            # `nemotron serve` reads the log to its end, and need not wait for this process.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            self._end()

    def _watch(self) -> str | None:
        """Wait for a death, and return what to say of it; None when the server goes on with another guardian."""
        poll = select.poll()
        for descriptor in (0, *(watched.descriptor for watched in self._all())):
            poll.register(descriptor, select.POLLIN)
        timeout_s: float | None = None
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(timeout_s and timeout_s * 1000)}
            if not ready:
                return None
            if 0 in ready:
                words = os.read(0, 4096)
                if not words:
                    poll.unregister(0)
                self._last_word = words.splitlines(keepends=True)[-1] if words else self._last_word
            serving = self._last_word == SERVING
            if self._serve and self._serve.descriptor in ready:
                return "nemotron serve died; stopping tritonserver"
            if self._tritonserver.descriptor in ready:
                # `nemotron serve` says itself how tritonserver ended.
                return "" if self._serve or not serving else "tritonserver died; stopping its Python stubs"
            if self._model.descriptor in ready:
                if serving and 0 not in ready:
                    return "the Python stub of the engine died; stopping tritonserver"
                if not serving:
                    poll.unregister(self._model.descriptor)
                    timeout_s = _RETIREMENT_S

    def _end(self) -> None:
        """End all processes of the server but `nemotron serve`, and remove what they leave, unless that one does."""
        deadline = time.monotonic() + _PATIENCE_S
        self._tritonserver.send(signal.SIGTERM)
        self._tritonserver.is_dead(_GRACE_S)
        alive = True
        while time.monotonic() < deadline:
            if alive:
                alive = self._kill()
            # Where `nemotron serve` lives, it holds the lock, and removes it.
            elif self._lock.collect():
                return
            time.sleep(_LOOK_S)

    def _kill(self) -> bool:
        """Kill all processes of the server but `nemotron serve`; whether there were any."""
        members = [self._model, self._tritonserver, *self._members()]
        alive = [member for member in members if not member.is_dead()]
        for member in alive:
            member.send(signal.SIGKILL)
        for member in members[2:]:
            os.close(member.descriptor)
        return bool(alive)

    def _members(self) -> Iterator[Watched]:
        """The server's other processes: those of tritonserver's own session, else those that hold the lock in it."""
        for pid in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
            with contextlib.suppress(OSError):
                if self._is_member(pid):
                    member = Watched.open(pid)
                    # The number may have come to mean another process before it was opened.
                    if self._is_member(member.pid):
                        yield member
                    else:
                        os.close(member.descriptor)

    def _is_member(self, pid: int) -> bool:
        if pid == os.getpid() or (self._serve and pid == self._serve.pid):
            return False
        session = os.getsid(pid)
        return session == self._tritonserver.pid or (session == self._session and self._lock.is_held_by(pid))

    def _all(self) -> list[Watched]:
        return [self._model, self._tritonserver, *([self._serve] if self._serve else [])]


def _say(line: str) -> None:
    # The reader of the log may be gone too.
    with contextlib.suppress(OSError):
        os.write(2, f"nemotron: {line}\n".encode())


def main(arguments: Sequence[str]) -> None:
    """Guard the server of the lock file, the model, the tritonserver and the `nemotron serve` that *arguments* name."""
    lock, model, tritonserver, *serve = arguments
    watched = [Watched.parse(text) for text in (model, tritonserver, *serve)]
    Guardian(ServerLock(Path(lock)), watched[0], watched[1], watched[2] if serve else None).run()
