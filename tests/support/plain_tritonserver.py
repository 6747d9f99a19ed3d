"""A tritonserver started without `nemotron serve`: the script that ci/setup puts beside `nemotron`, and its log."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from nemotron_client import Client
from nemotron_triton.tritonserver import launcher_script
from patience import wait_until
from running import serve_options
from served import port_flags


@dataclass(frozen=True)
class PlainTritonserver:
    """The process, its gRPC endpoint, and the file with its log."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def wait_ready(self) -> None:
        with Client(self.url) as client:
            wait_until(lambda: self._is_ready(client), patience_s=60)

    def _is_ready(self, client: Client) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        return client.is_ready()


@contextmanager
def plain_tritonserver(
    repository: Path | str,
    folder: Path,
    *flags: str,
    cwd: Path,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[PlainTritonserver]:
    """A server of *repository*, run in *cwd* with *variables* in its environment; *folder* holds script and log."""
    options = serve_options()
    launcher, log = folder / "tritonserver", folder / "log"
    launcher.write_text(launcher_script())
    launcher.chmod(0o755)
    command = [str(launcher), f"--model-repository={repository}", *port_flags(options), *flags]
    environment = {name: value for name, value in os.environ.items() if name != "NEMOTRON_BUNDLE"}
    with log.open("w") as lines:
        process = subprocess.Popen(command, stdout=lines, stderr=lines, cwd=cwd, env={**environment, **variables})
    try:
        yield PlainTritonserver(process, options.grpc_url, log)
    finally:
        process.terminate()
        process.wait(timeout=40)
