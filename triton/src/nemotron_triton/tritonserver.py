"""Where `tritonserver` is, and the environment its Python stub needs. Starts nothing.

It is in NVIDIA's container, ready and on PATH, or in the `nvidia-pytriton` wheel, of which nothing else is used.
`python -m nemotron_triton.tritonserver` prints a launcher script for the latter.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_triton.atomic import atomic_folder
from nemotron_triton.errors import ServerError
from nemotron_triton.places import is_plain

WHEEL = "nvidia-pytriton"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_CONTAINER_BACKENDS = Path("/opt/tritonserver/backends")
_LAUNCHER = "# tritonserver of the nvidia-pytriton wheel, for the Python beside this file"


@dataclass(frozen=True, kw_only=True)
class Tritonserver:
    """A tritonserver that can be started: the beginning of its `argv`, and variables to add to the environment.

    `backends` is the folder of its backends where it has to be told.
    """

    argv: tuple[str, ...]
    environment: dict[str, str]
    backends: Path | None = None

    def command(self, folder: Path) -> list[str]:
        """The beginning of its command line; a link in *folder* where the path of `backends` cannot lie on a stub's."""
        if self.backends is None:
            return list(self.argv)
        backends = self.backends
        if not is_plain(backends):
            backends = folder / "backends"
            backends.symlink_to(self.backends)
        return [*self.argv, f"--backend-directory={backends}"]


@dataclass(frozen=True, kw_only=True)
class Installed:
    """Where a tritonserver is; only that of the wheel has a `root` and a `stub`, and needs this Python's library."""

    binary: Path
    version: str | None = None
    root: Path | None = None
    stub: Path | None = None


def locate_tritonserver() -> Installed:
    """The container's tritonserver, else the wheel's; writes nothing. `ServerError` says what to install."""
    on_path = shutil.which("tritonserver")
    if on_path and _CONTAINER_BACKENDS.is_dir():
        return Installed(binary=Path(on_path))
    try:
        wheel = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError as error:
        raise ServerError(
            "there is no tritonserver here",
            f"use NVIDIA's Triton container, or `pip install --no-deps {WHEEL}==0.7.0` (Linux x86-64)",
        ) from error
    root = Path(str(wheel.locate_file("pytriton/tritonserver")))
    stub = root / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
    binary = root / "bin" / "tritonserver"
    for file in (binary, stub):
        if not file.is_file():
            raise ServerError(
                f"{WHEEL} {wheel.version} has no {file.name} for Python {_PYTHON}", "use Python 3.10 to 3.12"
            )
    return Installed(binary=binary, version=wheel.version, root=root, stub=stub)


def find_tritonserver(config_var: Callable[[str], Any] = sysconfig.get_config_var) -> Tritonserver:
    """The tritonserver to start, with what its stub needs prepared; `ServerError` says what to install.

    *config_var* gives the variables with which this Python was built.
    """
    numpy = importlib.metadata.version("numpy")
    if int(numpy.partition(".")[0]) >= 2:
        raise ServerError(
            f"tritonserver's Python stub needs numpy<2, and this Python has numpy {numpy}",
            "pip install 'numpy<2', with Python 3.10 to 3.12",
        )
    installed = locate_tritonserver()
    binary, root, stub = str(installed.binary), installed.root, installed.stub
    if root is None or stub is None:
        return Tritonserver(argv=(binary,), environment={})
    libraries = root.parents[1] / "nvidia_pytriton.libs"
    return Tritonserver(
        argv=(binary,),
        backends=_backends(root, stub, str(installed.version)),
        environment={
            # The interpreter's own libpython first: with another patch release's the stub dies while importing.
            "LD_LIBRARY_PATH": os.pathsep.join([str(find_libpython(config_var).parent), str(libraries)]),
            # The stub takes its packages from the first python on PATH.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        },
    )


def find_libpython(config_var: Callable[[str], Any] = sysconfig.get_config_var) -> Path:
    """The shared library of this interpreter, which the wheel's stub links; `ServerError` says what to install."""
    for folder in (config_var("LIBDIR"), f"/usr/lib/{config_var('MULTIARCH')}"):
        if folder and (path := Path(folder) / f"libpython{_PYTHON}.so.1.0").is_file():
            return path
    raise ServerError(
        f"{sys.executable} has no shared libpython{_PYTHON}.so.1.0, which tritonserver's Python stub needs",
        f"`apt-get install libpython{_PYTHON}`, or use a Python built with --enable-shared",
    )


def _backends(root: Path, stub: Path, version: str) -> Path:
    """A backend directory with links to the wheel's files and to the stub for this Python, made once.

    It lies in the Python environment, or in the user's cache where that is read-only.
    """
    # One for each installed wheel and Python: environments must not share links into each other.
    name = f"triton-backends-{version}-{hashlib.sha256(f'{root}|{stub}'.encode()).hexdigest()[:12]}"
    places = [Path(sys.prefix) / "share" / "nemotron" / name]
    if cache := os.environ.get("XDG_CACHE_HOME") or (os.environ.get("HOME") and f"{os.environ['HOME']}/.cache"):
        places.append(Path(cache) / "nemotron" / name)
    for place in places:
        if (place / "python" / stub.name).exists():
            return place
    problems = []
    for place in places:
        try:
            with atomic_folder(place) as backends:
                (backends / "python").mkdir()
                for source in (*(root / "backends" / "python").iterdir(), stub):
                    (backends / "python" / source.name).symlink_to(source)
        except OSError as error:
            if not (place / "python" / stub.name).exists():  # else another process was faster
                problems.append(f"{place.parent}: {error.strerror}")
                continue
        return place
    raise ServerError(f"cannot prepare tritonserver's backends ({'; '.join(problems)}); make one of these writable")


def launcher_script() -> str:
    """A shell script that starts the wheel's tritonserver with any arguments, for use without `nemotron serve`."""
    server = find_tritonserver()
    variables = " ".join(shlex.quote(f"{name}={value}") for name, value in server.environment.items())
    backends = [f"--backend-directory={server.backends}"] if server.backends else []
    return f'#!/bin/sh\n{_LAUNCHER}\nexec env {variables} {shlex.join([*server.argv, *backends])} "$@"\n'


if __name__ == "__main__":
    try:
        sys.stdout.write(launcher_script())
    except ServerError as error:
        sys.exit(f"error: {error}")
