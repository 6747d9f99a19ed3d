"""tritonserver as a child process: started, waited for, drained and stopped, and never left behind."""

from __future__ import annotations

import collections
import contextlib
import errno
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from nemotron_triton import hidden_arguments
from nemotron_triton.access import SECRET_VARIABLE, Access, new_value
from nemotron_triton.bundle import Bundle
from nemotron_triton.compatibility import check_loadable
from nemotron_triton.errors import ServerError
from nemotron_triton.hidden_arguments import HiddenArgument, HidingError
from nemotron_triton.places import SHARED_MEMORY, check_shared_memory, temporary_parent
from nemotron_triton.reload import Reload
from nemotron_triton.repository import configs, write_repository
from nemotron_triton.run_folder import VARIABLE as RUN_FOLDER
from nemotron_triton.run_folder import RunFolder
from nemotron_triton.serve_options import ServeOptions, join
from nemotron_triton.server_log import reason_of_death
from nemotron_triton.tritonserver import Tritonserver, find_tritonserver

__all__ = ["RunningServer", "ServeOptions", "serve"]

LogLine = Callable[[str], None]
Process: TypeAlias = "subprocess.Popen[str]"
_POLL_S = 0.1
# The time tritonserver takes to end when nothing runs.
_FAREWELL_S = 3.0
# The server is on this machine: http_proxy does not apply.
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RunningServer:
    """A tritonserver that `serve` started. Each line of its log goes to *log*; without *reload* it keeps its bundle."""

    def __init__(
        self, process: Process, options: ServeOptions, run_folder: RunFolder, reload: Reload | None, log: LogLine
    ) -> None:
        self._process = process
        self._options = options
        self._run_folder = run_folder
        self._reload = reload
        self._reloading = threading.Lock()
        self._patience_s = options.exit_timeout_s + 5.0
        self._tail: collections.deque[str] = collections.deque(maxlen=400)
        self._reader = threading.Thread(target=self._read, args=(log,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id of tritonserver."""
        return self._process.pid

    def wait_ready(self, stop: threading.Event) -> bool:
        """Wait until the server can answer; False when *stop* was set first. `ServerError` when it never will."""
        deadline = time.monotonic() + self._options.ready_timeout_s
        url = f"{self._options.http_url}/v2/health/ready"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self._death("while loading")
            if _answers(url):
                # What went wrong until here did not keep it from serving.
                self._tail.clear()
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

    def reload(self) -> Bundle:
        """Serve the bundle that now lies where the first was opened; see `Reload.run`."""
        if not self._reload:
            raise ServerError("this server takes no new bundle", "start it with --allow-reload")
        if not self._reloading.acquire(blocking=False):
            raise ServerError("a new bundle is being loaded already")
        try:
            return self._reload.run()
        finally:
            self._reloading.release()

    def drain(self, hurry: threading.Event) -> None:
        """Take no new requests, and wait until the running ones are answered, their time is up, or *hurry* is set.

        Not left to tritonserver: on SIGTERM it refuses new requests as for a model that does not exist, so that callers
        try no other server, and after its exit timeout it dies in the middle of streams (seen with 2.51). Raises
        `ServerError` at once where the models cannot be asked to drain, as on a full disk.
        """
        self._run_folder.drain()
        deadline = time.monotonic() + self._options.drain_ms / 1000
        while self._process.poll() is None and self._run_folder.anyone_serves():
            if hurry.wait(_POLL_S) or time.monotonic() > deadline:
                # The answers that still run had their time.
                self._patience_s = _FAREWELL_S
                return

    def stop(self) -> None:
        """End the server: let it finish what it can in its exit timeout, if `drain` left any, then kill it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=self._patience_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        # A stub that waits for its last answers outlives its server.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.join(timeout=2)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self, log: LogLine) -> None:
        assert self._process.stdout is not None
        for line in map(str.rstrip, self._process.stdout):
            self._tail.append(line)
            # A log that nobody reads any more must not stop the server, which blocks when its pipe is full.
            with contextlib.suppress(OSError, ValueError):
                log(line)

    def _death(self, when: str) -> ServerError:
        self._reader.join(timeout=2)
        code = self._process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        return ServerError(f"tritonserver {how} {when}: {reason_of_death(list(self._tail), code)}")


@contextlib.contextmanager
def serve(
    bundle: Bundle,
    options: ServeOptions,
    *,
    log: LogLine,
    server: Tritonserver | None = None,
    adapters: Mapping[str, Path] = MappingProxyType({}),
) -> Iterator[RunningServer]:
    """Tritonserver on a temporary model repository of *bundle*; stopped and cleaned up when the block ends.

    *adapters* are files to use, by model, instead of our own in `model_repo/`. Raises `BundleError` and `ServerError`,
    where possible before anything is started.
    """
    check_loadable(bundle)
    server = server or find_tritonserver()
    if options.tls:
        options.tls.check()
    for option, port in options.ports.items():
        _check_free(options.hosts[option], port, option)
    access = Access(secret=options.secret, control=new_value() if options.allow_reload else None)
    check_shared_memory(len(configs(text_models=options.text_models)), options.settings.max_prompt_bytes, log)
    with tempfile.TemporaryDirectory(prefix="nemotron-serve-", dir=temporary_parent(log)) as temporary:
        folder = Path(temporary)
        repository = folder / "models"
        run_folder = RunFolder(folder / "run")
        run_folder.path.mkdir()
        run_folder.verify(bundle)
        write_repository(
            bundle, repository, options.settings, text_models=options.text_models, link=True, adapters=adapters
        )
        reload = access.control and Reload(
            bundle_path=bundle.path,
            repository=repository,
            run_folder=run_folder,
            http_url=options.http_url,
            control=access.control,
            timeout_s=options.ready_timeout_s,
        )
        arguments = options.arguments(repository, folder.name, configs(text_models=options.text_models))
        process = _start(server, arguments, access, run_folder, log)
        running = RunningServer(process, options, run_folder, reload or None, log)
        try:
            yield running
        finally:
            running.stop()
            # A stub that was killed leaves its shared memory behind.
            for region in SHARED_MEMORY.glob(f"{folder.name}*"):
                region.unlink(missing_ok=True)


def _start(server: Tritonserver, arguments: list[str], access: Access, run_folder: RunFolder, log: LogLine) -> Process:
    folder = run_folder.path.parent
    # The model need not know the secret. What the server and its stubs leave in their temporary folder goes with ours.
    environment = {name: value for name, value in os.environ.items() if name != SECRET_VARIABLE}
    environment |= server.environment | {"TMPDIR": str(folder), RUN_FOLDER: str(run_folder.path)}

    command = server.command(folder)

    def start(guards: Sequence[str | HiddenArgument]) -> Process:
        try:
            return hidden_arguments.start(
                [*command, *arguments, *guards],
                environment=environment,
                # Not the user's folder: the stub puts '' on sys.path, where a folder `triton` poses as the package.
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # Ctrl-C is ours to handle; when we are killed ourselves, the server ends too.
                start_new_session=True,
            )
        except OSError as error:
            raise ServerError(f"cannot start {server.argv[0]}: {error.strerror}") from error

    guards = access.arguments()
    try:
        return start(guards)
    except HidingError as error:
        if access.secret or access.control:
            raise
        # The values only close shared memory and the like, and only other users of this machine could read them.
        log(f"warning: {error}")
        return start([guard.shown + guard.value for guard in guards])


def _check_free(host: str, port: int, option: str) -> None:
    # The flag of gRPC's host is plain `--host`.
    flag = option.replace("grpc-", "").replace("port", "host")
    if not host:
        # To the operating system that means every address.
        raise ServerError(f"there is no address to listen on at port {port}", f"give {flag} one; 0.0.0.0 means all")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            taken = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
            remedy = f"choose another {option}" if taken else f"give {flag} an address of this machine"
            raise ServerError(f"cannot listen on {join(host, port)}: {reason}", remedy) from error


def _answers(url: str) -> bool:
    try:
        with _NO_PROXY.open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (OSError, http.client.HTTPException):
        return False
