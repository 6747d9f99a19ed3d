"""Starts tritonserver on a bundle, as a child process with a folder of its own, and ends both together."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from nemotron_triton import hidden_arguments, readiness
from nemotron_triton.access import Access, new_value
from nemotron_triton.bundle import Bundle
from nemotron_triton.callers import FILE_VARIABLE, SECRET_VARIABLE
from nemotron_triton.compatibility import check_loadable
from nemotron_triton.errors import ServerError
from nemotron_triton.hidden_arguments import HiddenArgument, HidingError
from nemotron_triton.model_control import ModelControl
from nemotron_triton.places import check_shared_memory, temporary_parent
from nemotron_triton.reload import Reload
from nemotron_triton.repository import configs, write_repository
from nemotron_triton.run_folder import VARIABLE as RUN_FOLDER
from nemotron_triton.run_folder import RunFolder
from nemotron_triton.running_server import LogLine, Process, RunningServer
from nemotron_triton.serve_options import ServeOptions
from nemotron_triton.server_lock import LockError, locked_folder
from nemotron_triton.tritonserver import Tritonserver, find_tritonserver

__all__ = ["RunningServer", "ServeOptions", "serve"]


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
