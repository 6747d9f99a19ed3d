"""What this machine has for building engines: GPUs, TensorRT-LLM, a container runtime. Looks, and changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

from nemotron_build.commands.versions import TENSORRT_LLM, has_engines
from nemotron_build.errors import BuildError
from nemotron_triton.nvml import Nvml, read_nvml
from nemotron_triton.runtime import installed_version


@dataclass(frozen=True, kw_only=True)
class Host:
    """The tools and GPUs of a machine; `sms` are its GPUs' compute capabilities (90 for an H100)."""

    sms: tuple[int, ...] = ()
    gpu_titles: tuple[str, ...] = ()
    tensorrt_llm: str | None = None
    docker: bool = False
    edge_llm: bool = False

    @property
    def builds_engines(self) -> bool:
        """Whether `trtllm-build` can run here without a container."""
        try:
            return self.tensorrt_llm is not None and has_engines(self.tensorrt_llm)
        except BuildError:
            return False

    def device(self, sm: int | None) -> int | None:
        """The index, in NVML's order, of the first GPU of SM *sm*; None where there is none."""
        return self.sms.index(sm) if sm in self.sms else None

    def lacks_gpu(self, sm: int, title: str) -> str | None:
        """Why an engine for SM *sm* cannot be compiled here, or None."""
        if sm in self.sms:
            return None
        here = " and ".join(self.gpu_titles) or "no NVIDIA GPU"
        return f"an engine for {title} is compiled on a GPU of SM {sm}, and this machine has {here}"

    def lacks_tensorrt_llm(self) -> str | None:
        """Why TensorRT-LLM's build tools cannot run here, or None."""
        if self.builds_engines or self.docker:
            return None
        if self.tensorrt_llm:
            return (
                f"TensorRT-LLM {self.tensorrt_llm} is installed here, which has no compiled engines any more: "
                f"{TENSORRT_LLM} is the last, and there is no docker to run it in"
            )
        return "neither tensorrt_llm nor docker is installed here"


def read_host(which: Callable[[str], str | None] = shutil.which, *, nvml: Nvml | None = None) -> Host:
    """This machine; *which* finds programs, *nvml* is what its driver reports, read by default."""
    nvml = nvml or read_nvml()
    return Host(
        sms=tuple(gpu.sm for gpu in nvml.gpus),
        gpu_titles=tuple(str(gpu) for gpu in nvml.gpus),
        tensorrt_llm=installed_version("tensorrt_llm") if which("trtllm-build") else None,
        docker=which("docker") is not None,
        edge_llm=which("tensorrt-edgellm-build") is not None,
    )
