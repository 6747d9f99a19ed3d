"""What the OpenAI-compatible gateway costs: its CPU for each response, beside the least that a gateway can be.

A server replays recorded responses, and callers read streams of them; both are processes of their own, and so are the
gateway and the floor (`http/floor.py`: raw ASGI, a raw gRPC stub, one event for each response). They take turns.
`--peer` has vLLM's API server take turns with them (`http/vllm_server.py`), whose engine's process replays the same.
`--grow` sends that many requests through one gateway and tells by how much it grew; `--crowd` has that many callers at
once, of whom a fifth do not read, and tells how much memory that takes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from environments import interpreters, kept
from ports import free_ports

HERE = Path(__file__).parent / "http"
MODEL = Path(__file__).parents[2] / "build" / "demo" / "checkpoint"
STREAMS = (1, 16, 64, 256)
RESPONSES = 100
# Of all streams together, as `nemotron` paces itself by default; the fewest of one.
RESPONSES_PER_S, LEAST_INTERVAL_S = 1500, 0.005
# Of one measurement.
MEASURE_S = 8.0
# vLLM without a GPU, asking nobody, saying little.
VLLM = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
START_S = 300
COLUMNS = ["streams", "floor, µs/response", "gateway", "gateway / floor", "first event, ms: floor", "gateway"]
# Where it does not keep up, vLLM puts several outputs into one event; so the ratio is of what an event costs.
PEER_COLUMNS = ["µs/response", "events/response", "per event / gateway", "first event, ms"]
say = sys.stdout.write


@dataclass(frozen=True)
class Measured:
    """One load on one program."""

    responses: int
    events: int
    cpu_s: float
    first_ms: float

    @property
    def us(self) -> float:
        """CPU for each response, µs."""
        return self.cpu_s / self.responses * 1e6

    @property
    def event_us(self) -> float:
        """CPU for each event that a caller got, µs."""
        return self.cpu_s / self.events * 1e6


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="What the gateway costs.")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each, of which the median is shown")
    parser.add_argument("--streams", type=int, nargs="*", default=STREAMS)
    parser.add_argument("--peer", action="store_true", help="vLLM's API server beside them (2 GB are installed)")
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
    peer = _vllm() if options.peer else None
    columns = COLUMNS + ([f"vLLM {_version(peer)}, {column}" for column in PEER_COLUMNS] if peer else [])
    say(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n")
    for streams in options.streams:
        with programs(streams, RESPONSES, peer) as running:
            for program in running:
                program.measure(streams, 1)  # warm
            turns = [
                [program.measure(streams, _rounds(streams)) for program in running] for _ in range(options.repeats)
            ]
        say(f"| {streams} | {' | '.join(_figures(turns))} |\n")
        sys.stdout.flush()


def _figures(turns: Sequence[Sequence[Measured]]) -> Iterator[str]:
    """A row: medians, of which ratios are between what took turns."""
    floor, gateway, *peers = zip(*turns, strict=True)
    for loads in (floor, gateway):
        yield f"{statistics.median(load.us for load in loads):.0f}"
    yield f"**{statistics.median(b.us / a.us for a, b in zip(floor, gateway, strict=True)):.2f}**"
    for loads in (floor, gateway):
        yield f"{statistics.median(load.first_ms for load in loads):.1f}"
    for loads in peers:
        yield f"{statistics.median(load.us for load in loads):.0f}"
        yield f"{statistics.median(load.events / load.responses for load in loads):.2f}"
        yield f"**{statistics.median(b.event_us / a.event_us for a, b in zip(gateway, loads, strict=True)):.2f}**"
        yield f"{statistics.median(load.first_ms for load in loads):.1f}"


def _interval_s(streams: int) -> float:
    """The pace of each stream."""
    return max(LEAST_INTERVAL_S, streams / RESPONSES_PER_S)


def _rounds(streams: int) -> int:
    return max(1, round(MEASURE_S / (RESPONSES * _interval_s(streams))))


@dataclass(frozen=True)
class Program:
    """A program that answers HTTP at a port."""

    process: psutil.Process
    port: int
    responses: int
    interval_s: float

    def measure(self, streams: int, rounds: int) -> Measured:
        """What it uses for *rounds* requests of each of so many callers."""
        before = self.process.cpu_times()
        seen = self.load(streams, rounds)
        after = self.process.cpu_times()
        cpu_s = after.user + after.system - before.user - before.system
        return Measured(streams * rounds * self.responses, int(seen["events"]), cpu_s, seen["first_ms"])

    def load(self, streams: int, rounds: int, slow: int = 0) -> dict[str, float]:
        """What the callers saw; *slow* more read nothing before the others are done."""
        command = [
            sys.executable,
            HERE / "load.py",
            *map(str, (self.port, streams, rounds, slow, self.responses * self.interval_s)),
        ]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own program
        seen: dict[str, float] = json.loads(ran.stdout)
        return seen

    def rss_bytes(self) -> int:
        """Its memory that is its own."""
        info = self.process.memory_full_info()
        return int(info.uss)


@contextlib.contextmanager
def programs(streams: int, responses: int, peer: Path | None = None) -> Iterator[list[Program]]:
    """The floor and the gateway in front of one server that replays; and vLLM, if *peer* is a Python that has it."""
    grpc_port, *ports = free_ports(4)
    interval_s = _interval_s(streams) if responses > 2 else 0.0
    server = [HERE / "replay_server.py", str(grpc_port), str(responses), str(interval_s)]
    commands = [
        [HERE / "floor.py", str(grpc_port), str(ports[0])],
        ["-m", "nemotron_cli", "gateway", "--url", f"127.0.0.1:{grpc_port}", "--port", str(ports[1])],
    ]
    with contextlib.ExitStack() as running:

        def start(
            arguments: Sequence[str | Path], python: str | Path = sys.executable, more: Mapping[str, str] | None = None
        ) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(  # noqa: S603 - our own programs
                [python, *arguments], stdout=subprocess.PIPE, env={**os.environ, **(more or {})}
            )
            running.callback(process.wait)
            running.callback(process.kill)
            return process

        replaying = start(server)
        assert replaying.stdout
        assert replaying.stdout.readline()
        started = [start(command) for command in commands]
        if peer:
            folder = running.enter_context(tempfile.TemporaryDirectory())
            start([HERE / "vllm_engine.py", MODEL, folder, str(responses), str(interval_s)], peer, VLLM)
            started.append(start([HERE / "vllm_server.py", MODEL, str(ports[2]), folder], peer, VLLM))
        for process, port in zip(started, ports, strict=False):
            _wait(process, port)
        yield [
            Program(psutil.Process(process.pid), port, responses, interval_s)
            for process, port in zip(started, ports, strict=False)
        ]


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    """Until *process* listens at *port*."""
    end_s = time.monotonic() + START_S
    while True:
        assert process.poll() is None, f"{process.args} ended"
        assert time.monotonic() < end_s, f"{process.args} does not listen"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.2)


def _vllm() -> Path:
    """The Python of the environment with vLLM, which is made where it is missing."""
    base = next((path for version, path in sorted(interpreters().items()) if (3, 11) <= version < (3, 14)), None)
    assert base, "vLLM wants CPython 3.11 to 3.13"
    return kept("peer-vllm", base, HERE / "vllm.txt", before=["torch==2.13.0"])


def _version(python: Path) -> str:
    program = "import importlib.metadata; print(importlib.metadata.version('vllm'))"
    return subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 - our own


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
