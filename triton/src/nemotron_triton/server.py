"""tritonserver as a child process: started, waited for, drained and stopped, and never left behind."""

from __future__ import annotations

import collections
import contextlib
import functools
import http.client
import math
import os
import resource
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from nemotron_triton import hidden_arguments, readiness
from nemotron_triton.access import Access, new_value
from nemotron_triton.bundle import Bundle
from nemotron_triton.callers import FILE_VARIABLE, SECRET_VARIABLE, Callers
from nemotron_triton.compatibility import check_loadable
from nemotron_triton.errors import ServerError
from nemotron_triton.hidden_arguments import HiddenArgument, HidingError
from nemotron_triton.model_control import ModelControl
from nemotron_triton.places import check_shared_memory, temporary_parent
from nemotron_triton.reload import Reload
from nemotron_triton.repository import configs, write_repository
from nemotron_triton.run_folder import VARIABLE as RUN_FOLDER
from nemotron_triton.run_folder import RunFolder, is_alive
from nemotron_triton.serve_options import ServeOptions
from nemotron_triton.server_lock import LockError, locked_folder
from nemotron_triton.server_log import reason_of_death
from nemotron_triton.tritonserver import Tritonserver, find_tritonserver

__all__ = ["RunningServer", "ServeOptions", "serve"]

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

    def drain(self, hurry: threading.Event) -> None:
        """Take no new requests, and wait until the running ones are answered, their time is up, or *hurry* is set.

        Not left to tritonserver: on SIGTERM it refuses new requests as for a model that does not exist, so that callers
        try no other server, and after its exit timeout it dies in the middle of streams (seen with 2.51). Raises
        `ServerError` at once where the models cannot be asked to drain, as on a full disk.
        """
        self._models = self._run_folder.serving() or self._models
        self._run_folder.drain()
        deadline = time.monotonic() + self._options.drain_ms / 1000
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
    options = options.resolved()
    control = ModelControl(http_url=options.http_url, value=new_value())
    access = Access(has_secrets=options.callers is not None, control=control.value)
    check_shared_memory(len(configs(text_models=options.text_models)), options.settings.max_prompt_bytes, log)
    with _locked_folder(temporary_parent(log)) as (folder, lock):
        repository = folder / "models"
        run_folder = RunFolder(folder / "run")
        run_folder.create()
        run_folder.verify(bundle)
        write_repository(
            bundle, repository, options.settings, text_models=options.text_models, link=True, adapters=adapters
        )
        reload = options.allow_reload and Reload(
            bundle_path=bundle.path,
            repository=repository,
            run_folder=run_folder,
            control=control,
            timeout_s=options.ready_timeout_s,
        )
        arguments = options.arguments(repository, folder.name)
        explicit = [
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in configs(text_models=options.text_models)),
            f"--model-repository={readiness.prepare(folder)}",
        ]
        secrets = {FILE_VARIABLE: str(run_folder.write_callers(options.callers))} if options.callers is not None else {}
        start = functools.partial(_start, server, run_folder=run_folder, lock=lock, secrets=secrets)
        try:
            controlled = True
            process = start([*arguments, *explicit, *access.arguments()])
        except HidingError as error:
            if options.allow_reload:
                raise
            # The other values only close shared memory and the like, and only users of this machine could read them.
            log(f"warning: {error}; without it health says ready until the server ends")
            controlled = False
            guards = [guard.shown + guard.value for guard in replace(access, control=None).arguments()]
            process = start([*arguments, *guards])
        running = RunningServer(process, options, run_folder, control if controlled else None, reload or None, log)
        try:
            yield running
        finally:
            running.stop()


@contextlib.contextmanager
def _locked_folder(parent: Path) -> Iterator[tuple[Path, int]]:
    try:
        with locked_folder(parent) as locked:
            yield locked
    except LockError as error:
        raise ServerError(str(error)) from error


def _start(
    server: Tritonserver,
    arguments: Sequence[str | HiddenArgument],
    *,
    run_folder: RunFolder,
    lock: int,
    secrets: Mapping[str, str],
) -> Process:
    folder = run_folder.path.parent
    # The models get the digests of the secrets alone. What the server and its stubs leave in their temporary folder
    # goes with ours.
    environment = {name: value for name, value in os.environ.items() if name not in (SECRET_VARIABLE, FILE_VARIABLE)}
    environment |= server.environment | {"TMPDIR": str(folder), RUN_FOLDER: str(run_folder.path), **secrets}
    try:
        process = hidden_arguments.start(
            [*server.command(folder), *arguments],
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
            # While it lives, the lock is held.
            pass_fds=(lock,),
            # Nothing that it writes is another user's to read.
            umask=0o077,
        )
    except OSError as error:
        raise ServerError(f"cannot start {server.argv[0]}: {error.strerror}") from error
    # Nor a core dump, which would hold prompts.
    with contextlib.suppress(OSError):
        resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
    return process


def _answers(url: str) -> bool:
    try:
        with _NO_PROXY.open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (OSError, http.client.HTTPException):
        return False
