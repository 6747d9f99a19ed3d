"""The GPUs of this machine, and the versions of the packages that run engines. Imports none of these."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, field

from nemotron_triton.nvml import Nvml, read_nvml


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A machine that may load a bundle. A version is None where its package is not installed."""

    nvml: Nvml = field(default_factory=Nvml)
    tensorrt_llm: str | None = None
    tensorrt: str | None = None
    edge_llm: str | None = None
    llama_cpp: str | None = None

    @property
    def sms(self) -> tuple[int, ...]:
        """The compute capabilities of its GPUs: 90 for an H100."""
        return tuple(gpu.sm for gpu in self.nvml.gpus)

    @property
    def gpu_titles(self) -> str:
        """Its GPUs by name, for a sentence."""
        return " and ".join(sorted({str(gpu) for gpu in self.nvml.gpus})) or "no NVIDIA GPU"


def read_runtime() -> Runtime:
    """This machine."""
    return Runtime(
        nvml=read_nvml(),
        tensorrt_llm=installed_version("tensorrt_llm"),
        tensorrt=installed_version("tensorrt"),
        edge_llm=installed_version("tensorrt-edgellm"),
        llama_cpp=installed_version("xllamacpp"),
    )


def installed_version(distribution: str) -> str | None:
    """The version of an installed package, by its metadata."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
