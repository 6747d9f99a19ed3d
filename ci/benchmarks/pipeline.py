"""What serving costs beyond the engine: `nemotron` doing everything, beside a Python model that does nothing.

On a real tritonserver, with an engine that replays recorded tokens as fast as they are read. (a) is a bare decoupled
model that sends the same ids, one per response; (b) is `nemotron`: render, tokenise, detokenise, part thinking, answer
and calls. CPU time is that of tritonserver and of the model's process, from /proc; the clients run in another process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from nemotron_build.engine import EngineSpec, build
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.render import Prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.repository import write_repository
from nemotron_triton.serving.settings import Settings
from nemotron_triton.tritonserver import find_tritonserver

CHECKPOINT = Path(__file__).parents[2] / "build" / "demo" / "checkpoint"
REPLAY = Path(__file__).parent / "replay"
HTTP, GRPC, METRICS = 18000, 18001, 18002
MODELS = ("bare", "nemotron")
STREAMS = (1, 16, 64, 256)
# Tokens of all streams together in one measurement, and the fewest of one stream.
TOKENS, LEAST_TOKENS = 16_000, 200
SHORT, LONG, LENGTH_STREAMS = 200, 30_000, 8
_THINKING = "The bill is 8887.81 dollars and the tip is 18 percent, so I will call calculate_tip with both. "
_TEXT = "A tip of 18 percent on 8887.81 is 8887.81 x 18 / 100, which the tool will tell us. "
_CALL = '<TOOLCALL>[{"name": "calculate_tip", "arguments": {}}]</TOOLCALL>'


@dataclass(frozen=True)
class Measured:
    """One load on one model: CPU µs per token of each process, and what the clients saw."""

    server_us: float
    stub_us: float
    tokens_per_s: float
    tokens_per_response: float
    first_ms: float

    @property
    def total_us(self) -> float:
        """Both processes together."""
        return self.server_us + self.stub_us


class Server:
    """A tritonserver with both models, once it is ready."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._server = psutil.Process(process.pid)
        deadline = time.monotonic() + 60
        while not _ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("tritonserver did not become ready")
            time.sleep(0.1)

    def measure(self, model: str, streams: int, tokens: int, rounds: int, *, text_alone: bool = False) -> Measured:
        """*rounds* of *streams* at once of *tokens* each."""
        stub = next(child for child in self._server.children() if f"/{model}/1/" in " ".join(child.cmdline()))
        numbers = (streams, tokens, rounds, int(text_alone))
        before = _cpu_s(self._server), _cpu_s(stub)
        load = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, REPLAY / "load.py", f"127.0.0.1:{GRPC}", model, *map(str, numbers)],
            capture_output=True,
            text=True,
            check=False,
        )
        after = _cpu_s(self._server), _cpu_s(stub)
        if load.returncode:
            raise SystemExit(f"the load on {model} failed: {load.stderr}")
        figures = json.loads(load.stdout)
        generated = streams * tokens * rounds
        server_us, stub_us = ((end - begin) * 1e6 / generated for begin, end in zip(before, after, strict=True))
        return Measured(
            server_us=server_us,
            stub_us=stub_us,
            tokens_per_s=generated / figures["took_s"],
            tokens_per_response=generated / figures["responses"],
            first_ms=statistics.median(figures["first_ms"]),
        )


@contextlib.contextmanager
def serving(folder: Path, bundle: Bundle, **settings: int) -> Iterator[Server]:
    """Both models, `nemotron` with these settings."""
    models = folder / "models"
    write_repository(bundle, models, Settings(**settings), adapters={"nemotron": REPLAY / "nemotron_model.py"})
    (models / "bare" / "1").mkdir(parents=True)
    (models / "bare" / "1" / "model.py").write_bytes((REPLAY / "bare_model.py").read_bytes())
    (models / "bare" / "config.pbtxt").write_text(_bare_config())
    triton = find_tritonserver()
    environment = os.environ | triton.environment | {"NEMOTRON_REPLAY": str(REPLAY)}
    environment["NEMOTRON_RECORDING"] = str(folder / "recording.json")
    arguments = [
        f"--model-repository={models}",
        f"--http-port={HTTP}",
        f"--grpc-port={GRPC}",
        f"--metrics-port={METRICS}",
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--disable-auto-complete-config",
        "--allow-gpu-metrics=false",
    ]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - tritonserver
            [*triton.command(folder), *arguments], env=environment, cwd=folder, stdout=log, stderr=log
        )
        try:
            yield Server(process)
        finally:
            process.terminate()
            process.wait()


def _bare_config() -> str:
    config = model_config_pb2.ModelConfig(name="bare", backend="python", max_batch_size=1)
    config.input.add(name="max_tokens", data_type=model_config_pb2.TYPE_INT32, dims=[1])
    config.output.add(name="token_id", data_type=model_config_pb2.TYPE_INT32, dims=[1])
    config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    config.model_transaction_policy.decoupled = True
    return text_format.MessageToString(config)


def _ready() -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{GRPC}") as channel:
        try:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            return bool(stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=2).ready)
        except grpc.RpcError:
            return False


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def record(bundle: Bundle, path: Path) -> None:
    """The parts of an answer as ids of the bundle's tokenizer."""
    codec = TokenCodec(bundle.tokenizer_path)
    texts = {"opened": "<think>\n", "thinking": _THINKING, "closed": "</think>\n\n", "text": _TEXT, "call": _CALL}
    path.write_text(json.dumps({name: codec.encode(Prompt(text, "\ufdd0", ())) for name, text in texts.items()}))


def _row(label: str, loads: Sequence[Measured]) -> str:
    fields = ("server_us", "stub_us", "total_us", "tokens_per_s", "tokens_per_response")
    server, stub, total, speed, size = (statistics.median(getattr(load, field) for load in loads) for field in fields)
    return f"| {label} | {server:.0f} | {stub:.0f} | {total:.0f} | {speed:,.0f} | {size:.1f} |\n"


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description="What serving costs beyond the engine.")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each, of which the median is shown")
    repeats = parser.parse_args().repeats
    say = sys.stdout.write
    say("| model, streams | tritonserver, µs/token | stub, µs/token | both | tokens/s | tokens/response |\n")
    say("|---|---|---|---|---|---|\n")
    ratios: list[str] = []
    with tempfile.TemporaryDirectory() as path:
        build(EngineSpec(checkpoint=CHECKPOINT, gpu="cpu"), Path(path) / "bundle")
        bundle = Bundle.open(Path(path) / "bundle")
        for name, settings in (("coalescing", {}), ("no coalescing", {"stream_interval_ms": 0})):
            folder = Path(path) / name.replace(" ", "-")
            folder.mkdir()
            record(bundle, folder / "recording.json")
            with serving(folder, bundle, **settings) as server:
                for model in MODELS:
                    server.measure(model, 16, LEAST_TOKENS, 1)  # warm
                for streams in STREAMS:
                    bare, ours = _pairs(server, repeats, streams, max(LEAST_TOKENS, TOKENS // streams))
                    say(_row(f"(a) bare, {streams}", bare))
                    say(_row(f"(b) {name}, {streams}", ours))
                    ratio = statistics.median(b.total_us / a.total_us for a, b in zip(bare, ours, strict=True))
                    ratios.append(f"| {name}, {streams} streams: CPU per token, (b) / (a) | {ratio:.2f} |")
                request_ms, ratio = _lengths(server, repeats)
                ratios.append(f"| {name}: CPU of a request but for its tokens | {request_ms:.1f} ms |")
                ratios.append(f"| {name}: CPU of each further token, of {LONG:,} / of {SHORT} | {ratio:.2f} |")
                bare, ours = _pairs(server, repeats, 1, SHORT, rounds=20)
                later_ms = statistics.median(b.first_ms - a.first_ms for a, b in zip(bare, ours, strict=True))
                ratios.append(f"| {name}, 1 stream: TTFT, (b) - (a) | {later_ms:.1f} ms |")
    say("\n| in pairs, median | |\n|---|---|\n" + "\n".join(ratios) + "\n")


def _pairs(
    server: Server, repeats: int, streams: int, tokens: int, rounds: int = 1
) -> tuple[list[Measured], list[Measured]]:
    """Both models, one right after the other, so that what else the machine does is in both."""
    pairs = [[server.measure(model, streams, tokens, rounds) for model in MODELS] for _ in range(repeats)]
    return [bare for bare, _ in pairs], [ours for _, ours in pairs]


def _lengths(server: Server, repeats: int) -> tuple[float, float]:
    """What a request costs by itself, ms, and each further token of long answers, as a multiple of short ones'."""
    requests, ratios = [], []
    for _ in range((repeats + 1) // 2):
        one, short, long = (
            server.measure("nemotron", LENGTH_STREAMS, tokens, rounds, text_alone=True).total_us * tokens
            for tokens, rounds in ((1, LONG // SHORT), (SHORT, LONG // SHORT), (LONG, 1))
        )
        requests.append(one / 1000)
        ratios.append(((long - one) / (LONG - 1)) / ((short - one) / (SHORT - 1)))
    return statistics.median(requests), statistics.median(ratios)


if __name__ == "__main__":
    main()
