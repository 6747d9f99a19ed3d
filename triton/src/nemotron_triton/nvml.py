"""The NVIDIA GPUs of this machine, from its driver (NVML). Changes nothing, and never raises."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LocalGpu:
    """A GPU of this machine; memory is None where the driver does not report it, as on Jetson."""

    title: str
    sm: int
    memory_bytes: int | None = None
    free_bytes: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.title} (SM {self.sm})"


@dataclass(frozen=True, kw_only=True)
class Nvml:
    """The driver's report. Without any GPU, `problem` says why and `remedy` what to do."""

    gpus: tuple[LocalGpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    problem: str | None = None
    remedy: str | None = None


def read_nvml() -> Nvml:
    """The report of this machine's driver."""
    try:
        import pynvml
    except ModuleNotFoundError:
        return Nvml(
            problem="nvidia-ml-py is not installed here, without which no GPU is seen",
            remedy="pip install nvidia-ml-py",
        )
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Nvml(
            problem=f"this machine has no NVIDIA driver ({error})",
            remedy="install the driver, or start the container with `--gpus all`",
        )
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        cuda = int(pynvml.nvmlSystemGetCudaDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        gpus = tuple(_gpu(pynvml, handle) for handle in handles)
    except pynvml.NVMLError as error:
        return Nvml(problem=f"the NVIDIA driver cannot read its GPUs ({error})", remedy="`nvidia-smi` shows more")
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    return Nvml(
        gpus=gpus,
        driver=driver,
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}",
        problem=None if gpus else "this machine has an NVIDIA driver, but no GPU",
        remedy=None if gpus else "start the container with `--gpus all`, or use a machine with a GPU",
    )


def _gpu(pynvml: Any, handle: Any) -> LocalGpu:
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    title, sm = _text(pynvml.nvmlDeviceGetName(handle)), int(major) * 10 + int(minor)
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError:
        return LocalGpu(title, sm)  # Jetson's unified memory is not NVML's to report.
    return LocalGpu(title, sm, int(memory.total), int(memory.free))


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
