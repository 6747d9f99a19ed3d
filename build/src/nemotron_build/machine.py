"""What `nemotron doctor` looks at: everything of this machine that building and serving can depend on.

Looks, starts nothing but `docker info`, and changes nothing. Every way to look is a parameter.
"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import socket
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_build.docker import Ask, Docker, Which, ask, read_docker
from nemotron_build.host import Host, read_host
from nemotron_build.kinds import KINDS
from nemotron_build.quantization.environment import Environment, cache_folder
from nemotron_triton.errors import ServerError
from nemotron_triton.runtime import Runtime, read_runtime
from nemotron_triton.server import ServeOptions
from nemotron_triton.tritonserver import Installed, find_libpython, locate_tritonserver

# What an installation without extras leaves out, by the import that tells.
_MODULES = ("gguf", "jinja2", "ml_dtypes", "safetensors", "tokenizers")


@dataclass(frozen=True)
class Place:
    """A folder, and the space that is free where it is or would be made."""

    path: Path
    free_bytes: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """This machine. A `ServerError` stands for what is not there, and says what to install."""

    host: Host
    runtime: Runtime
    docker: Docker | None
    tritonserver: str | ServerError
    libpython: str | ServerError | None
    missing_modules: tuple[str, ...]
    openmp: bool
    venv: bool
    environments: Mapping[str, bool]
    shm_bytes: int | None
    places: tuple[Place, ...]
    taken_ports: tuple[int, ...]


def port_is_free(port: int) -> bool:
    """Whether a server can listen on *port* of the loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def has_library(name: str) -> bool:
    """Whether the dynamic linker finds a library."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def read_machine(
    *,
    which: Which = shutil.which,
    ask: Ask = ask,
    free: Callable[[int], bool] = port_is_free,
    module: Callable[[str], object] = importlib.util.find_spec,
    library: Callable[[str], bool] = has_library,
    locate: Callable[[], Installed] = locate_tritonserver,
    config_var: Callable[[str], Any] = sysconfig.get_config_var,
    shm: Path = Path("/dev/shm"),  # noqa: S108 - Triton's place, not a temporary file
    folders: Sequence[Path] = (Path(), cache_folder()),
    runtime: Runtime | None = None,
) -> Machine:
    """This machine, seen through the parameters."""
    runtime = runtime or read_runtime()
    server, libpython = _tritonserver(locate, config_var)
    return Machine(
        host=read_host(which, nvml=runtime.nvml),
        runtime=runtime,
        docker=read_docker(which, ask),
        tritonserver=server,
        libpython=libpython,
        missing_modules=tuple(name for name in _MODULES if not module(name)),
        openmp=library("libgomp.so.1"),
        venv=bool(module("ensurepip")),
        environments={kind.modelopt.name: _is_made(kind.modelopt) for kind in KINDS if kind.modelopt},
        shm_bytes=shutil.disk_usage(shm).total if shm.exists() else None,
        places=tuple(Place(folder, _free_bytes(folder)) for folder in folders),
        taken_ports=tuple(port for port in ServeOptions().ports.values() if not free(port)),
    )


def _tritonserver(
    locate: Callable[[], Installed], config_var: Callable[[str], Any]
) -> tuple[str | ServerError, str | ServerError | None]:
    """The server, and the library its stub needs: None where that is the container's affair."""
    try:
        installed = locate()
    except ServerError as error:
        return error, None
    server = f"nvidia-pytriton {installed.version}" if installed.version else str(installed.binary)
    if installed.root is None:
        return server, None
    try:
        return server, str(find_libpython(config_var))
    except ServerError as error:
        return server, error


def _is_made(environment: Environment) -> bool:
    return environment.pins.is_file() and environment.folder().is_dir()


def _free_bytes(folder: Path) -> int:
    """Free space where *folder* is or would be made."""
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free
