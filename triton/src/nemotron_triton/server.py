"""tritonserver as a child process: started on loopback, waited for, watched, stopped, and never left behind."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import http.client
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nemotron_triton.bundle import Bundle
from nemotron_triton.engine.factory import check_loadable
from nemotron_triton.errors import ServerError
from nemotron_triton.repository import write_repository
from nemotron_triton.tritonserver import Tritonserver, find_tritonserver

LogLine = Callable[[str], None]
_POLL_S = 0.1
# The server is on this machine, whatever http_proxy says.
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_PR_SET_PDEATHSIG = 1
_MODEL_FAILURE = re.compile(r"TritonModelException: (.+?)\s*(?:\||$)")
_SERVER_FAILURE = re.compile(r"^(?:error: .*|E\d{4}.*)$")


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Where to listen, and how long to wait."""

    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    ready_timeout_s: float = 600.0
    exit_timeout_s: int = 10

    @property
    def ports(self) -> dict[str, int]:
        """The ports by the option that sets each."""
        return {"--http-port": self.http_port, "--grpc-port": self.grpc_port, "--metrics-port": self.metrics_port}

    def arguments(self, repository: Path, shm_prefix: str) -> list[str]:
        """Tritonserver's arguments."""
        return [
            f"--model-repository={repository}",
            f"--http-address={self.host}",
            f"--http-port={self.http_port}",
            f"--grpc-address={self.host}",
            f"--grpc-port={self.grpc_port}",
            f"--metrics-address={self.host}",
            f"--metrics-port={self.metrics_port}",
            f"--exit-timeout-secs={self.exit_timeout_s}",
            "--disable-auto-complete-config",
            "--allow-gpu-metrics=false",
            f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        ]


class RunningServer:
    """A tritonserver that was started by `serve`."""

    def __init__(self, process: subprocess.Popen[str], options: ServeOptions, log: LogLine) -> None:
        """Begin to read the server's log; each line goes to *log*."""
        self._process = process
        self._options = options
        self._tail: collections.deque[str] = collections.deque(maxlen=400)
        self._reader = threading.Thread(target=self._read, args=(log,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id of tritonserver."""
        return self._process.pid

    def wait_ready(self, stop: threading.Event) -> bool:
        """Wait until the server can answer; False when *stop* was set first. `ServerError` says why it never will."""
        deadline = time.monotonic() + self._options.ready_timeout_s
        url = f"http://{self._options.host}:{self._options.http_port}/v2/health/ready"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self._death("while loading")
            if _answers(url):
                return True
            if stop.wait(_POLL_S):
                return False
        raise ServerError(
            f"tritonserver was not ready within {self._options.ready_timeout_s:g} s; its log says what it does"
        )

    def wait(self, stop: threading.Event) -> None:
        """Wait until *stop* is set; `ServerError` when the server dies first."""
        while not stop.wait(_POLL_S):
            if self._process.poll() is not None:
                raise self._death("while serving")

    def stop(self) -> None:
        """End the server: let it finish what it can in its exit timeout, then kill it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=self._options.exit_timeout_s + 5)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._reader.join(timeout=2)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self, log: LogLine) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._tail.append(line.rstrip("\n"))
            # A log that nobody reads any more must not stop the server, which blocks when its pipe is full.
            with contextlib.suppress(OSError, ValueError):
                log(line.rstrip("\n"))

    def _death(self, when: str) -> ServerError:
        self._reader.join(timeout=2)
        code = self._process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        return ServerError(f"tritonserver {how} {when}: {_reason(list(self._tail))}")


@contextlib.contextmanager
def serve(
    bundle: Bundle, options: ServeOptions, *, log: LogLine, server: Tritonserver | None = None
) -> Iterator[RunningServer]:
    """Tritonserver on a temporary model repository of *bundle*; stopped and cleaned up when the block ends.

    Raises `BundleError` and `ServerError` before anything is started where it can.
    """
    check_loadable(bundle)
    server = server or find_tritonserver()
    for option, port in options.ports.items():
        _check_free(options.host, port, option)
    with tempfile.TemporaryDirectory(prefix="nemotron-serve-") as folder:
        repository = Path(folder) / "models"
        write_repository(bundle, repository, link=True)
        shm_prefix = Path(folder).name
        process = _start(server, options.arguments(repository, shm_prefix), Path(folder))
        running = RunningServer(process, options, log)
        try:
            yield running
        finally:
            running.stop()
            # A stub that was killed leaves its shared memory behind.
            for region in Path("/dev/shm").glob(f"{shm_prefix}*"):  # noqa: S108 - Triton's place, not a temporary file
                region.unlink(missing_ok=True)


def _start(server: Tritonserver, arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        return subprocess.Popen(  # noqa: S603 - argv is a list, and the binary was found by us
            [*server.argv, *arguments],
            # Whatever the server and its stubs leave in their temporary folder goes with ours.
            env=os.environ | server.environment | {"TMPDIR": str(folder)},
            # Not the user's folder: the stub puts '' on sys.path, where a folder named `triton` poses as the package.
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C is ours to handle; the death signal ends the server when we are killed ourselves.
            start_new_session=True,
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
        )
    except OSError as error:
        raise ServerError(f"cannot start {server.argv[0]}: {error.strerror}") from error


def _check_free(host: str, port: int, option: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ServerError(f"cannot listen on {host}:{port}: {reason}; choose another {option}") from error


def _answers(url: str) -> bool:
    try:
        with _NO_PROXY.open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def _reason(tail: list[str]) -> str:
    """The line of the log that says why, our own messages first."""
    for pattern in (_MODEL_FAILURE, _SERVER_FAILURE):
        for line in reversed(tail):
            if found := pattern.search(line):
                return found[found.lastindex or 0]
    return next((line for line in reversed(tail) if line.strip()), "its log is empty")
