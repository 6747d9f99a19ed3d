"""A tritonserver with the models that are compared, and what a load on one of them costs.

`bare` does nothing; `nemotron` is everything with an engine that replays; `each` is the same without coalescing, where
each response has one token. All have the configuration of `nemotron`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from tritonclient.grpc import service_pb2, service_pb2_grpc

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.render import Prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.repository import configs, pbtxt, write_repository
from nemotron_triton.serving.settings import Settings
from nemotron_triton.tritonserver import find_tritonserver

_REPLAY = Path(__file__).parent
_HTTP, _GRPC, _METRICS = (int(os.environ.get("NEMOTRON_BENCH_PORT", "18000")) + offset for offset in range(3))
_START_S = 60
_THINKING = "The bill is 8887.81 dollars and the tip is 18 percent, so I will call calculate_tip with both. "
_TEXT = "A tip of 18 percent on 8887.81 is 8887.81 x 18 / 100, which the tool will tell us. "
_CALL = '<TOOLCALL>[{"name": "calculate_tip", "arguments": {}}]</TOOLCALL>'


@dataclass(frozen=True, kw_only=True)
class Load:
    """*rounds* of *streams* requests at once, of *tokens* each; an answer is text alone, or thinks and calls a tool."""

    streams: int
    tokens: int
    rounds: int = 1
    text_alone: bool = False


@dataclass(frozen=True)
class Measured:
    """What one load on one model cost: CPU µs of each process, and what the clients saw."""

    load: Load
    server_us: float
    stub_us: float
    took_s: float
    responses: int
    first_ms: float

    @property
    def requests(self) -> int:
        """How many were answered."""
        return self.load.streams * self.load.rounds

    @property
    def tokens(self) -> int:
        """Of all answers together."""
        return self.requests * self.load.tokens

    @property
    def total_us(self) -> float:
        """Both processes together."""
        return self.server_us + self.stub_us


class Server:
    """A tritonserver with all models, once it is ready."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._server = psutil.Process(process.pid)
        deadline = time.monotonic() + _START_S
        while not _ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("tritonserver did not become ready")
            time.sleep(0.1)

    def measure(self, model: str, load: Load, *, responses: int = 0) -> Measured:
        """Run *load*; *responses* is how many the bare model makes of an answer, 0 for one of each token."""
        stub = next(child for child in self._server.children() if f"/{model}/1/" in " ".join(child.cmdline()))
        numbers = (load.streams, load.tokens, load.rounds, int(load.text_alone), responses)
        before = _cpu_us(self._server), _cpu_us(stub)
        run = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, _REPLAY / "load.py", f"127.0.0.1:{_GRPC}", model, *map(str, numbers)],
            capture_output=True,
            text=True,
            check=False,
        )
        after = _cpu_us(self._server), _cpu_us(stub)
        if run.returncode:
            raise SystemExit(f"the load on {model} failed: {run.stderr}")
        figures = json.loads(run.stdout)
        server_us, stub_us = (end - begin for begin, end in zip(before, after, strict=True))
        first_ms = statistics.median(figures["first_ms"])
        return Measured(load, server_us, stub_us, figures["took_s"], figures["responses"], first_ms)


@contextlib.contextmanager
def serving(folder: Path, bundle: Bundle) -> Iterator[Server]:
    """All models of *bundle*, in *folder*."""
    models = folder / "models"
    write_repository(bundle, models, text_models=False, adapters={"nemotron": _REPLAY / "nemotron_model.py"})
    shutil.copytree(models / "nemotron", models / "each")
    shutil.copytree(models / "nemotron", models / "bare")
    (models / "bare" / "1" / "model.py").write_bytes((_REPLAY / "bare_model.py").read_bytes())
    for name, settings in (("bare", Settings()), ("each", Settings(stream_interval_ms=0))):
        config = configs(settings, text_models=False)["nemotron"]
        config.name = name
        (models / name / "config.pbtxt").write_text(pbtxt(config))
    _record(bundle, folder / "recording.json")
    triton = find_tritonserver()
    environment = os.environ | triton.environment | {"NEMOTRON_REPLAY": str(_REPLAY)}
    environment["NEMOTRON_RECORDING"] = str(folder / "recording.json")
    arguments = [
        f"--model-repository={models}",
        f"--http-port={_HTTP}",
        f"--grpc-port={_GRPC}",
        f"--metrics-port={_METRICS}",
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


def _record(bundle: Bundle, path: Path) -> None:
    """The parts of an answer as ids of the bundle's tokenizer."""
    codec = TokenCodec(bundle.tokenizer_path)
    texts = {"opened": "<think>\n", "thinking": _THINKING, "closed": "</think>\n\n", "text": _TEXT, "call": _CALL}
    path.write_text(json.dumps({name: codec.encode(Prompt(text, "\ufdd0", ())) for name, text in texts.items()}))


def _ready() -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{_GRPC}") as channel:
        try:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            return bool(stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=2).ready)
        except grpc.RpcError:
            return False


def _cpu_us(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system) * 1e6
