"""What this machine has for building engines: GPUs, TensorRT-LLM, a container runtime. Looks, and changes nothing."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from nemotron_build.commands.versions import TENSORRT_LLM, has_engines
from nemotron_build.errors import BuildError


@dataclass(frozen=True, kw_only=True)
class Host:
    """The tools and GPUs of a machine; `sms` are its GPUs' compute capabilities (90 for an H100)."""

    sms: tuple[int, ...] = ()
    gpu_titles: tuple[str, ...] = ()
    driver: str | None = None
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

    def lacks_gpu(self, sm: int, title: str) -> str | None:
        """Why an engine for SM *sm* cannot be compiled here, or None."""
        if sm in self.sms:
            return None
        found = " and ".join(self.gpu_titles) or "no NVIDIA GPU"
        return f"an engine for {title} is compiled on a GPU of SM {sm}, and this machine has {found}"

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


def read_host(which: Callable[[str], str | None] = shutil.which) -> Host:
    """This machine."""
    sms, titles, driver = _gpus()
    return Host(
        sms=sms,
        gpu_titles=titles,
        driver=driver,
        tensorrt_llm=_version("tensorrt_llm") if which("trtllm-build") else None,
        docker=which("docker") is not None,
        edge_llm=which("tensorrt-edgellm-build") is not None,
    )


def _gpus() -> tuple[tuple[int, ...], tuple[str, ...], str | None]:
    try:
        import pynvml
    except ModuleNotFoundError:
        return (), (), None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return (), (), None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        capabilities = [pynvml.nvmlDeviceGetCudaComputeCapability(handle) for handle in handles]
        names = [pynvml.nvmlDeviceGetName(handle) for handle in handles]
        driver = pynvml.nvmlSystemGetDriverVersion()
    except pynvml.NVMLError:
        return (), (), None
    finally:
        pynvml.nvmlShutdown()
    titles = tuple(f"{name} (SM {major}{minor})" for name, (major, minor) in zip(names, capabilities, strict=True))
    return tuple(major * 10 + minor for major, minor in capabilities), titles, str(driver)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
