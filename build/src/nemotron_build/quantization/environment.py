"""The Python environments that ModelOpt runs in: made once, pinned, apart from this one.

ModelOpt 0.37, which TensorRT-LLM 1.2.1 pins, and the newer one that knows `nemotron_h` want different transformers, and
neither should decide what serving uses. An environment is named by the digest of its pins and Python.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from nemotron_build.locks import locked
from nemotron_build.processes import Runner, run
from nemotron_triton.atomic import atomic_folder

_PINS = Path(__file__).parent


@dataclass(frozen=True)
class Environment:
    """A set of pinned packages, from the file *name*.txt beside this module."""

    name: str

    @property
    def pins(self) -> Path:
        """The requirements file."""
        return _PINS / f"{self.name}.txt"

    @property
    def versions(self) -> dict[str, str]:
        """The pinned versions; what goes into a build's record."""
        lines = [line.partition("#")[0].strip() for line in self.pins.read_text(encoding="utf-8").splitlines()]
        return dict(line.split("==", 1) for line in lines if line)

    def folder(self) -> Path:
        """Where it is, or would be made."""
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        what = f"{sorted(self.versions.items())} for {sys.base_prefix}"
        digest = hashlib.sha256(what.encode()).hexdigest()[:12]
        return cache_folder() / "environments" / f"{self.name}-py{python}-{digest}"

    def python(self, *, log: Path, runner: Runner = run) -> Path:
        """Its Python, after making the environment where it is missing (once, 1.4 GB without CUDA, minutes).

        `ToolError` when that fails: pip's own words are in *log*.
        """
        folder = self.folder()
        python = folder / "bin" / "python"
        with locked(folder.with_name(f"{folder.name}.lock")):
            if python.exists():
                return python
            # Without its Python, as after an upgrade of the one it was made with, it is of no use.
            shutil.rmtree(folder, ignore_errors=True)
            with atomic_folder(folder, partial=folder.with_name(f"{folder.name}.partial")) as partial:
                runner([_base_python(), "-m", "venv", str(partial)], log)
                pip = [str(partial / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
                runner([*pip, "--quiet", "--requirement", str(self.pins)], log)
        return python


# What TensorRT-LLM 1.2.1 pins, with the exporter of its own checkpoints; and the newer one, which knows nemotron_h.
MODELOPT_TRTLLM = Environment("modelopt-0.37")
MODELOPT_HF = Environment("modelopt-0.47")


def cache_folder() -> Path:
    """Where this project keeps what can be made again: `$XDG_CACHE_HOME/nemotron`, by default `~/.cache/nemotron`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nemotron"


def _base_python() -> str:
    return str(getattr(sys, "_base_executable", sys.executable))
