"""A tritonserver while it runs: waited for, reloaded, withdrawn, drained and stopped, and never left behind."""

from __future__ import annotations

import collections
import contextlib
import http.client
import math
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import TypeAlias

from nemotron_triton import readiness
from nemotron_triton.bundle import Bundle
from nemotron_triton.callers import Callers
from nemotron_triton.errors import ServerError
from nemotron_triton.model_control import ModelControl
from nemotron_triton.reload import Reload
from nemotron_triton.run_folder import RunFolder, is_alive
from nemotron_triton.serve_options import ServeOptions
from nemotron_triton.server_log import reason_of_death

LogLine = Callable[[str], None]
Process: TypeAlias = "subprocess.Popen[str]"
_POLL_S = 0.1
# The time tritonserver takes to end when nothing runs.
_FAREWELL_S = 3.0
# The longest time in which the guardian ends tritonserver.
_GUARDIAN_S = 3.0
# The time in which it hands its last bytes to the network, and the text models answer, when the engine has ended.
_FLUSH_S = 0.3
# The server is on this machine: http_proxy does not apply.
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RunningServer:
    """A tritonserver that `serve` started. Each line of its log goes to *log*.

    Without *reload* it keeps its bundle; without *control* its health says ready until it ends.
    """

    def __init__(
        self,
        process: Process,
        options: ServeOptions,
        run_folder: RunFolder,
        control: ModelControl | None,
        reload: Reload | None,
        log: LogLine,
    ) -> None:
        self._process = process
        self._options = options
        self._run_folder = run_folder
        self._control = control
        self._withdrawn = False
        self._reload = reload
        self._reloading = threading.Lock()
        self._patience_s = options.exit_timeout_s + 5.0
        self._models: set[int] = set()
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
        # tritonserver opens the metrics last, up to 50 ms after it says that it is ready.
        urls = f"{self._options.http_url}/v2/health/ready", self._options.metrics_url
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self._death("while loading")
            if all(map(_answers, urls)):
                # What went wrong until here did not keep it from serving.
                self._tail.clear()
                return True
            if stop.wait(_POLL_S):
                return False
        raise ServerError(
            f"tritonserver was not ready within {self._options.ready_timeout_s:g} s; its log says what it does"
        )

    def wait(self, stop: threading.Event, timeout_s: float = math.inf) -> None:
        """Wait until *stop* is set, or *timeout_s*; `ServerError` when the server dies first."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0 and not stop.wait(min(_POLL_S, left_s)):
            if self._process.poll() is not None:
                raise self._death("while serving")
            self._models = self._run_folder.serving() or self._models
            if not all(map(is_alive, self._models)) and not self._is_ended(_GUARDIAN_S):
                # The guardian would have ended tritonserver by now: it died too.
                self._tail.append("nemotron: the Python stub of the engine died; stopping tritonserver")
                self.stop()
                raise self._death("while serving")

    @property
    def takes_bundles(self) -> bool:
        """Whether it can be given another bundle."""
        return self._reload is not None

    def reload(self) -> Bundle:
        """Serve the bundle that now lies where the first was opened; see `Reload.run`."""
        if not self._reload:
            raise ServerError("this server takes no new bundle", "start it with --allow-reload")
        if self._withdrawn:
            raise ServerError("the server is stopping")
        if not self._reloading.acquire(blocking=False):
            raise ServerError("a new bundle is being loaded already")
        try:
            return self._reload.run()
        finally:
            self._reloading.release()

    def replace_callers(self, callers: Callers) -> None:
        """Take requests of *callers* from now on, and of nobody else; answers that run go on. Raises `ServerError`."""
        if self._options.callers is None:
            raise ServerError("this server asks for no secret", "start it with --secret-file")
        self._run_folder.write_callers(callers)

    def withdraw(self) -> None:
        """Say to all who ask that the server is not ready, and go on answering; `ServerError` where its health may not.

        That takes some milliseconds, and 4 s at most.
        """
        self._withdrawn = True
        self._run_folder.withdraw()
        if self._control:
            try:
                readiness.withdraw(self._control)
            except ServerError as error:
                raise ServerError(f"the server may say that it is ready until it ends: {error}") from error

    def drain(self, hurry: threading.Event, deadline: float | None = None) -> None:
        """Take no new requests, and wait until the running ones are answered, their time is up, or *hurry* is set.

        Their time is what the options say, from now on, or until *deadline* (of the monotonic clock).

        Not left to tritonserver: on SIGTERM it refuses new requests as for a model that does not exist, so that callers
        try no other server, and after its exit timeout it dies in the middle of streams (seen with 2.51). Raises
        `ServerError` at once where the models cannot be asked to drain, as on a full disk.
        """
        self._models = self._run_folder.serving() or self._models
        self._run_folder.drain()
        deadline = deadline or time.monotonic() + self._options.drain_ms / 1000
        while self._process.poll() is None and self._run_folder.anyone_serves():
            if hurry.wait(_POLL_S) or time.monotonic() > deadline:
                # The answers that still run had their time.
                self._patience_s = _FAREWELL_S
                return

    def stop(self) -> None:
        """End the server: let it finish what it can in its exit timeout, if `drain` left any, then kill it."""
        self._models = self._run_folder.serving() or self._models
        if self._process.poll() is None:
            self._process.terminate()
            deadline = time.monotonic() + self._patience_s
            while not self._is_ended(_POLL_S) and time.monotonic() < deadline:
                # It takes a second and more to end models that have finished already.
                if self._models and not self._run_folder.anyone_serves():
                    self._is_ended(_FLUSH_S)
                    break
            self._process.kill()
        self._process.wait()
        # A stub that waits for its last answers outlives its server.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.join(timeout=2)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _is_ended(self, within_s: float) -> bool:
        """Whether tritonserver has ended, at the latest after *within_s*."""
        try:
            self._process.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

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


def _answers(url: str) -> bool:
    try:
        with _NO_PROXY.open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (OSError, http.client.HTTPException):
        return False
