"""The Python interpreters of this machine, and environments with our wheels."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemotron_build.locks import locked
from nemotron_build.quantization.environment import cache_folder
from nemotron_triton.atomic import atomic_folder

Version = tuple[int, int]
_VERSION = "import sys; print(*sys.version_info[:2])"
_BUILD = "from hatchling.build import build_wheel; import sys; build_wheel(sys.argv[1])"


def interpreters() -> dict[Version, Path]:
    """An interpreter of each version from 3.10: on the PATH, or of pyenv, whose shims on the PATH may be disabled."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders = [*map(Path, os.get_exec_path()), *sorted(pyenv.glob("versions/*/bin"))]
    names = [f"python3.{minor}" for minor in range(10, 30)]
    pythons: dict[Version, Path] = {}
    for path in [Path(sys.executable), *(folder / name for name, folder in itertools.product(names, folders))]:
        if path.is_file() and (version := _version(path)) and version >= (3, 10):
            pythons.setdefault(version, path)
    return pythons


def _version(python: Path) -> Version | None:
    ran = subprocess.run([python, "-c", _VERSION], capture_output=True, text=True, check=False)
    if ran.returncode:
        return None
    major, minor = map(int, ran.stdout.split())
    return major, minor


@dataclass(frozen=True)
class Environment:
    """A virtual environment without pip."""

    python: Path
    packages: Path

    @classmethod
    def make(cls, folder: Path, python: Path, *, behind: Iterable[Path] = ()) -> Environment:
        """A new environment of *python*, which looks for packages that it lacks in the folders *behind*."""
        subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "behind.pth").write_text("".join(f"{path}\n" for path in behind))
        return cls(folder / "bin" / "python", packages)

    def install(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """The result of `pip install` with *arguments*."""
        pip = [sys.executable, "-m", "pip", f"--python={self.python}", "install", "--retries=1", "--no-compile"]
        return subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)

    def run(self, *arguments: str | Path) -> str:
        """The output of this Python for *arguments*, isolated from the developer's settings."""
        return subprocess.run([self.python, "-I", *arguments], capture_output=True, text=True, check=True).stdout


def kept(name: str, base: Path, pins: Path, *, before: Sequence[str] = ()) -> Path:
    """The Python of an environment of *base* with what the file *pins* names, which is made where it is missing.

    What is to be installed *before* brings its dependencies along; the pins bring nothing.
    """
    folder = kept_folder(name, pins.read_text(), str(base), *before)
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            with atomic_folder(folder, partial=folder.with_name(f"{folder.name}.partial")) as partial:
                environment = Environment.make(partial, base)
                for arguments in (before, ("--no-deps", "--requirement", pins)):
                    if arguments:
                        made = environment.install("--quiet", *arguments)
                        assert made.returncode == 0, made.stderr
    return folder / "bin" / "python"


def kept_folder(name: str, *contents: str) -> Path:
    """Where an environment with these *contents* is, or would be made."""
    return cache_folder() / "environments" / f"{name}-{hashlib.sha256(repr(contents).encode()).hexdigest()[:12]}"


def build_wheel(project: Path, folder: Path) -> Path:
    """The wheel of *project*, in *folder*."""
    subprocess.run([sys.executable, "-c", _BUILD, folder], cwd=project, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel
