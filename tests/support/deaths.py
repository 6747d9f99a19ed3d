"""Kills parts of a real server with SIGKILL and looks at what remains; as a program, prints a table (ci/test-death)."""

from __future__ import annotations

import argparse
import collections
import contextlib
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from nemotron_client import Client, ClientError, Finish
from nemotron_triton.bundle import Bundle
from nemotron_triton.server_lock import SHM
from patience import wait_until
from served import Served, served_by_command

# The longest time that anything of a dead server, or a stream from it, may last (issue 14).
LIMIT_S = 15.0
STREAMS, TOKENS = 40, 1500
HELLO = [{"role": "user", "content": "What is the capital of France?"}]
# What `Family.part` knows, in the order in which they are killed.
VICTIMS = {
    "serve": ["serve"],
    "tritonserver": ["tritonserver"],
    "stub": ["stub"],
    "serve and guardian": ["guardian", "serve"],
    "stub and guardian": ["guardian", "stub"],
}


@dataclass(frozen=True)
class Family:
    """The processes of a server."""

    serve: psutil.Process
    others: list[psutil.Process]

    @classmethod
    def of(cls, pid: int) -> Family:
        """That of the `nemotron serve` with this *pid*."""
        serve = psutil.Process(pid)
        return cls(serve, serve.children(recursive=True))

    def part(self, name: str) -> psutil.Process:
        """One of them."""
        if name == "serve":
            return self.serve
        words = {"tritonserver": "bin/tritonserver ", "stub": " nemotron_0_0 ", "guardian": "import guardian;"}[name]
        (part,) = [process for process in self.others if words in " ".join(process.cmdline())]
        return part

    def kill(self, victim: str) -> None:
        """Kill the parts of a *victim* at once."""
        parts = [self.part(name) for name in VICTIMS[victim]]
        for part in parts:
            part.send_signal(signal.SIGKILL)

    def survivors(self) -> list[psutil.Process]:
        """Those that still run."""
        return [process for process in (self.serve, *self.others) if _runs(process)]


@dataclass
class Outcome:
    """What one death left, and how long its parts took."""

    survivors: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    process_s: float = 0.0
    stream_s: float = 0.0
    ends: list[object] = field(default_factory=list)


def die(bundle: Path, folder: Path, victim: str, *, load: bool) -> Outcome:
    """Start a server with temporary files in *folder*, kill the *victim* of it, and wait for the end of everything."""
    # An idle server is of one model, which starts sooner; the one under load has all three.
    with served_by_command(bundle, *([] if load else ["--no-text-models"]), folder=folder) as served:
        (temporary,) = folder.glob("nemotron-serve-*")
        family = Family.of(served.process.pid)
        with streams(served, STREAMS if load else 0) as ends:
            begin_s = time.monotonic()
            family.kill(victim)
            outcome = Outcome(ends=ends)
            outcome.process_s = _time(lambda: not family.survivors(), begin_s)
            outcome.survivors = [" ".join(process.cmdline())[:100] for process in family.survivors()]
            outcome.stream_s = _time(lambda: not load or len(ends) == STREAMS, begin_s)
            if left := outcome.survivors or remains(served, folder, temporary.name):
                # A process that has ended may have been the last but one to know the files.
                _time(lambda: not remains(served, folder, temporary.name), begin_s)
                outcome.leftovers = remains(served, folder, temporary.name) if left else []
            for process in family.survivors():
                process.kill()
    return outcome


def remains(served: Served, folder: Path, name: str) -> list[str]:
    """What is left of the server whose temporary folder had *name*: files, shared memory, ports."""
    ports = set(served.options.ports.values())
    connections = psutil.net_connections("tcp")
    held = {entry.laddr[1] for entry in connections if entry.laddr and entry.status == psutil.CONN_LISTEN}
    return [*map(str, folder.iterdir()), *map(str, SHM.glob(f"{name}*")), *(f"port {port}" for port in ports & held)]


@contextlib.contextmanager
def streams(served: Served, count: int) -> Iterator[list[object]]:
    """*count* long streams, of which one has begun; how each ended is added to the list: its end, or its error."""
    ends: list[object] = []
    begun = threading.Event()

    def read() -> None:
        try:
            with Client(served.options.grpc_url, timeout_s=60) as client:
                last: object = None
                for event in client.stream(HELLO, end_id=-1, max_tokens=TOKENS):
                    last = event
                    begun.set()
                ends.append(last)
        except Exception as error:
            ends.append(error)

    with ThreadPoolExecutor(max(count, 1)) as threads:
        futures = [threads.submit(read) for _ in range(count)]
        assert not count or begun.wait(60), ends
        yield ends
        wait(futures)


def are_orderly(ends: list[object]) -> bool:
    """Whether each stream came to its end, or to one of the client's errors."""
    return all(isinstance(end, ClientError | Finish) for end in ends)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _time(condition: Callable[[], bool], begin_s: float) -> float:
    """When *condition* came to hold, at `LIMIT_S` at the latest."""
    while not condition() and time.monotonic() < begin_s + LIMIT_S:
        time.sleep(0.05)
    return time.monotonic() - begin_s


def stop(bundle: Path, folder: Path) -> float:
    """How long an idle server takes to end after SIGTERM, to its last process."""
    with served_by_command(bundle, folder=folder) as served:
        family = Family.of(served.process.pid)
        begin_s = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        return _time(lambda: served.process.poll() is not None and not family.survivors(), begin_s)


def lose_guardian(bundle: Path, folder: Path, *, load: bool) -> Outcome:
    """Kill the guardian of a server, see another, and stop the server: it must end as if nothing had happened."""
    with served_by_command(bundle, folder=folder) as served:
        (temporary,) = folder.glob("nemotron-serve-*")
        family = Family.of(served.process.pid)
        first, stub = family.part("guardian"), family.part("stub")
        with streams(served, 4 if load else 0) as ends:
            first.kill()
            wait_until(lambda: any(_is_guardian(child) for child in stub.children() if child != first))
        family = Family.of(served.process.pid)
        begin_s = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        process_s = _time(lambda: not family.survivors(), begin_s)
        return Outcome(
            survivors=[process.name() for process in family.survivors()],
            leftovers=remains(served, folder, temporary.name),
            process_s=process_s,
            ends=ends,
        )


def _is_guardian(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return _runs(process) and "import guardian;" in " ".join(process.cmdline())
    return False


def main() -> None:
    """Print what remains of servers that die, for each victim, idle and under load."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--victim", action="append", choices=[*VICTIMS, "guardian", "SIGTERM"])
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle).path
    failures = 0
    header = ("victim", "load", "runs", "survivors", "leftovers", "wrong ends", "last process, s", "last stream, s")
    _row(header)
    _row(["---"] * len(header))
    for victim in options.victim or [*VICTIMS, "guardian", "SIGTERM"]:
        for load in (False,) if victim == "SIGTERM" else (False, True):
            outcomes = [_one(bundle, victim, load=load) for _ in range(options.runs)]
            counts = collections.Counter[str]()
            for outcome in outcomes:
                counts["survivors"] += len(outcome.survivors)
                counts["leftovers"] += len(outcome.leftovers)
                counts["ends"] += not are_orderly(outcome.ends)
            failures += counts.total()
            _row(
                (
                    victim,
                    f"{STREAMS if victim != 'guardian' else 4} streams" if load else "idle",
                    len(outcomes),
                    *(counts[name] for name in ("survivors", "leftovers", "ends")),
                    f"{max(outcome.process_s for outcome in outcomes):.1f}",
                    f"{max(outcome.stream_s for outcome in outcomes):.1f}" if load else "",
                )
            )
    sys.exit(failures > 0)


def _one(bundle: Path, victim: str, *, load: bool) -> Outcome:
    """One death. A start that tritonserver 2.51 ends by itself, as it may on a busy machine, is told and repeated."""
    folder = Path(tempfile.mkdtemp())
    try:
        return _death(bundle, folder, victim, load=load)
    except AssertionError as error:
        if "boost::interprocess::lock_exception" not in str(error):
            raise
        sys.stderr.write("tritonserver aborted while it was loading: boost::interprocess::lock_exception\n")
        return _one(bundle, victim, load=load)
    finally:
        shutil.rmtree(folder)


def _death(bundle: Path, folder: Path, victim: str, *, load: bool) -> Outcome:
    if victim == "SIGTERM":
        return Outcome(process_s=stop(bundle, folder), leftovers=[str(path) for path in folder.iterdir()])
    if victim == "guardian":
        return lose_guardian(bundle, folder, load=load)
    return die(bundle, folder, victim, load=load)


def _row(cells: collections.abc.Iterable[object]) -> None:
    sys.stdout.write(f"| {' | '.join(map(str, cells))} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
