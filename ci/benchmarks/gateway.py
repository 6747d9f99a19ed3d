"""What the OpenAI-compatible gateway costs: its CPU for each response, beside the least that a gateway can be.

A server replays recorded responses, and callers read streams of them; both are processes of their own, and so are the
gateway and the floor (`http/floor.py`: raw ASGI, a raw gRPC stub, one event for each response). They take turns.
`--grow` sends that many requests through one gateway and tells by how much it grew; `--crowd` has that many callers at
once, of whom a fifth do not read, and tells how much memory that takes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from ports import free_ports

HERE = Path(__file__).parent / "http"
STREAMS = (1, 16, 64, 256)
RESPONSES = 100
# Of all streams together, as `nemotron` paces itself by default; the fewest of one.
RESPONSES_PER_S, LEAST_INTERVAL_S = 1500, 0.005
TOTAL_RESPONSES = 12_000
say = sys.stdout.write


@dataclass(frozen=True)
class Measured:
    """One load on one program."""

    responses: int
    cpu_s: float
    first_ms: float

    @property
    def us(self) -> float:
        """CPU for each response, µs."""
        return self.cpu_s / self.responses * 1e6


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="What the gateway costs.")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each, of which the median is shown")
    parser.add_argument("--streams", type=int, nargs="*", default=STREAMS)
    parser.add_argument("--grow", type=int, metavar="REQUESTS", help="only: by how much the gateway grows")
    parser.add_argument(
        "--crowd", type=int, metavar="CALLERS", help="only: the memory that callers who do not read take"
    )
    options = parser.parse_args()
    if options.grow:
        _grow(options.grow)
        return
    if options.crowd:
        _crowd(options.crowd)
        return
    say("| streams | floor, µs/response | gateway | gateway / floor | first event, ms: floor | gateway |\n")
    say("|---|---|---|---|---|---|\n")
    for streams in options.streams:
        with programs(streams, RESPONSES) as (floor, gateway):
            for program in (floor, gateway):
                program.measure(streams, 1)  # warm
            pairs = [
                (floor.measure(streams, _rounds(streams)), gateway.measure(streams, _rounds(streams)))
                for _ in range(options.repeats)
            ]
        least, ours = zip(*pairs, strict=True)
        ratio = statistics.median(b.us / a.us for a, b in pairs)
        figures = [statistics.median(load.us for load in loads) for loads in (least, ours)]
        first = [statistics.median(load.first_ms for load in loads) for loads in (least, ours)]
        say(
            f"| {streams} | {figures[0]:.0f} | {figures[1]:.0f} | **{ratio:.2f}** | {first[0]:.1f} | {first[1]:.1f} |\n"
        )
        sys.stdout.flush()


def _rounds(streams: int) -> int:
    return max(1, TOTAL_RESPONSES // (streams * RESPONSES))


@dataclass(frozen=True)
class Program:
    """A program that answers HTTP at a port."""

    process: psutil.Process
    port: int
    responses: int

    def measure(self, streams: int, rounds: int) -> Measured:
        """What it uses for *rounds* requests of each of so many callers."""
        before = self.process.cpu_times()
        seen = self.load(streams, rounds)
        after = self.process.cpu_times()
        cpu_s = after.user + after.system - before.user - before.system
        return Measured(streams * rounds * self.responses, cpu_s, seen["first_ms"])

    def load(self, streams: int, rounds: int, slow: int = 0) -> dict[str, float]:
        """What the callers saw; *slow* more read nothing before the others are done."""
        command = [sys.executable, HERE / "load.py", *map(str, (self.port, streams, rounds, slow))]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own program
        seen: dict[str, float] = json.loads(ran.stdout)
        return seen

    def rss_bytes(self) -> int:
        """Its memory that is its own."""
        info = self.process.memory_full_info()
        return int(info.uss)


@contextlib.contextmanager
def programs(streams: int, responses: int) -> Iterator[tuple[Program, Program]]:
    """The floor and the gateway in front of one server that replays."""
    grpc_port, floor_port, port = free_ports(3)
    interval_s = max(LEAST_INTERVAL_S, streams / RESPONSES_PER_S) if responses > 2 else 0.0
    server = [HERE / "replay_server.py", str(grpc_port), str(responses), str(interval_s)]
    commands = [
        [HERE / "floor.py", str(grpc_port), str(floor_port)],
        ["-m", "nemotron_cli", "gateway", "--url", f"127.0.0.1:{grpc_port}", "--port", str(port)],
    ]
    with contextlib.ExitStack() as running:

        def start(arguments: list[str | Path]) -> subprocess.Popen[bytes]:
            process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE)  # noqa: S603 - our own programs
            running.callback(process.wait)
            running.callback(process.kill)
            return process

        replaying = start(server)
        assert replaying.stdout
        assert replaying.stdout.readline()
        started = [start(command) for command in commands]
        time.sleep(3)
        yield (
            Program(psutil.Process(started[0].pid), floor_port, responses),
            Program(psutil.Process(started[1].pid), port, responses),
        )


def _grow(requests: int) -> None:
    """How much memory the gateway has after so many requests, beside what it had after a tenth of them."""
    streams, rounds = 16, requests // 160
    with programs(streams, 2) as (_, gateway):
        for part in range(10):
            gateway.load(streams, rounds)
            sys.stdout.write(f"{(part + 1) * rounds * streams:>9,} requests: {gateway.rss_bytes() / 2**20:.2f} MiB\n")
            sys.stdout.flush()


def _crowd(callers: int) -> None:
    """The gateway's memory while *callers* read answers of 1,000 responses, or, a fifth of them, do not."""
    slow, most_bytes = callers // 5, 0
    over = threading.Event()

    def watch(program: Program) -> None:
        nonlocal most_bytes
        while not over.wait(0.2):
            most_bytes = max(most_bytes, program.rss_bytes())

    with programs(callers, 1000) as (_, gateway):
        gateway.load(callers - slow, 1)
        before = gateway.rss_bytes()
        watching = threading.Thread(target=watch, args=(gateway,))
        watching.start()
        took = gateway.load(callers - slow, 1, slow)
        over.set()
        watching.join()
        after = gateway.rss_bytes()
    say(
        f"{callers - slow} callers who read, in {took['took_s']:.0f} s, and {slow} who do not: "
        f"{before / 2**20:.1f} MiB before, {most_bytes / 2**20:.1f} at most, {after / 2**20:.1f} after\n"
    )


if __name__ == "__main__":
    main()
