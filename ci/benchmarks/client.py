"""What the client costs beyond gRPC: `AsyncClient` beside raw `grpc.aio` stubs and tritonclient's asyncio client.

All receive the same bytes: an answer that a real tritonserver gave in this run, replayed from another process as fast
as it is read. CPU time is that of the client's process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2_grpc

from nemotron_build.engine import EngineSpec, build
from nemotron_client.protocol import infer_request
from nemotron_triton.bundle import Bundle
from nemotron_triton.server import ServeOptions, serve

CHECKPOINT = Path(__file__).parents[2] / "build" / "demo" / "checkpoint"
CLIENTS = Path(__file__).parent / "clients"
KINDS = ("raw", "nemotron", "tritonclient")
STREAMS = (1, 64, 512)
# Responses of one measurement.
RESPONSES = 30_000
# Of the answer that is recorded; with an answer's end they make as many responses.
ANSWER_TOKENS = 200
_QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
_HTTP, _GRPC, _METRICS = 18020, 18021, 18022


def record(folder: Path) -> list[bytes]:
    """The responses of a real server to one question, one token each."""
    build(EngineSpec(checkpoint=CHECKPOINT, gpu="cpu"), folder / "bundle")
    options = ServeOptions(http_port=_HTTP, grpc_port=_GRPC, metrics_port=_METRICS)
    with serve(Bundle.open(folder / "bundle"), options, log=lambda _: None) as server:
        if not server.wait_ready(threading.Event()):
            raise SystemExit("tritonserver did not become ready")
        values = {"messages": _QUESTION, "stream": True, "end_id": -1, "max_tokens": ANSWER_TOKENS}
        request = infer_request("nemotron", values, request_id="1")
        with grpc.insecure_channel(options.grpc_url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            responses = list(stub.ModelStreamInfer(iter([request]), timeout=60))
    if failure := next((response.error_message for response in responses if response.error_message), None):
        raise SystemExit(f"tritonserver did not answer: {failure}")
    return [response.SerializeToString() for response in responses]


@contextlib.contextmanager
def replaying(folder: Path, responses: list[bytes]) -> Iterator[str]:
    """The address of a process that answers every request with *responses*."""
    recording = folder / f"{len(responses)}.json"
    recording.write_text(json.dumps([response.hex() for response in responses]))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, CLIENTS / "responder.py", str(port), recording], stdout=subprocess.PIPE
    )
    assert process.stdout
    try:
        process.stdout.readline()
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def measure(kind: str, url: str, streams: int, requests: int, instances: int = 1) -> dict[str, float]:
    """The figures of one load of one client."""
    load = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, CLIENTS / "load.py", kind, url, *map(str, (streams, requests, instances))],
        capture_output=True,
        text=True,
        check=False,
    )
    if load.returncode:
        raise SystemExit(f"the load of {kind} failed: {load.stderr}")
    figures: dict[str, float] = json.loads(load.stdout)
    return figures


def main() -> None:
    """Measure and print three tables."""
    parser = argparse.ArgumentParser(description="What the client costs beyond gRPC.")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each, of which the median is shown")
    parser.add_argument("--requests", type=int, default=100_000, help="requests over which memory is watched")
    arguments = parser.parse_args()
    say = sys.stdout.write
    with tempfile.TemporaryDirectory() as path:
        responses = record(Path(path))
        say(f"An answer of {len(responses)} responses, {sum(map(len, responses)) / len(responses):.0f} bytes each.\n\n")
        say("| streams | raw, µs/response | nemotron | tritonclient | nemotron / raw | tritonclient / raw |\n")
        say("|---|---|---|---|---|---|\n")
        with replaying(Path(path), responses) as url:
            for streams in STREAMS:
                requests = max(streams, RESPONSES // len(responses))
                rounds = [
                    [measure(kind, url, streams, requests)["cpu_us_per_request"] / len(responses) for kind in KINDS]
                    for _ in range(arguments.repeats)
                ]
                raw_us, ours_us, plain_us = (statistics.median(column) for column in zip(*rounds, strict=True))
                ours, plain = (
                    statistics.median(row[place] / row[0] for row in rounds) for place in range(1, len(KINDS))
                )
                say(f"| {streams} | {raw_us:.0f} | {ours_us:.0f} | {plain_us:.0f} | {ours:.2f} | {plain:.2f} |\n")
        say(f"\n| | memory after {arguments.requests:,} requests of one client, KiB more | after 1,000 clients |\n")
        say("|---|---|---|\n")
        with replaying(Path(path), [*responses[:2], responses[-1]]) as url:
            for kind in KINDS:
                grown = measure(kind, url, 64, arguments.requests)["grown_kib"]
                clients = measure(kind, url, 1, 1, 1000)["grown_kib"]
                say(f"| {kind} | {grown:,.0f} | {clients:,.0f} |\n")


if __name__ == "__main__":
    main()
