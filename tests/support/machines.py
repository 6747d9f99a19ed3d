"""Invented machines for tests: NVML with given GPUs, and packages of which only the metadata exists."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

H100 = ("NVIDIA H100 80GB HBM3", (9, 0), 85_520_809_984)
L40S = ("NVIDIA L40S", (8, 9), 48_305_799_168)
THOR = (b"NVIDIA Thor", (11, 0), None)


class FakeNvml(ModuleType):
    """NVML on a machine with the GPUs of *seen*: (name, compute capability, bytes), None where NVML cannot tell.

    The function *fails* raises.
    """

    class NVMLError(Exception):
        """The error of `pynvml`."""

    def __init__(self, *seen: tuple[str | bytes, tuple[int, int], int | None], fails: str = "") -> None:
        super().__init__("pynvml")
        self.seen, self.fails, self.open = seen, fails, False

    def nvmlInit(self) -> None:  # noqa: N802
        self._may("nvmlInit")
        self.open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open = False

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "590.44.01"

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        return 13010

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._may("nvmlDeviceGetCount")
        return len(self.seen)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        return self.seen[index]

    def nvmlDeviceGetName(self, handle: Any) -> Any:  # noqa: N802
        return handle[0]

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> Any:  # noqa: N802
        return handle[1]

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:  # noqa: N802
        if handle[2] is None:
            raise self.NVMLError("Not Supported")
        return type("Memory", (), {"total": handle[2], "free": handle[2] // 2})

    def _may(self, name: str) -> None:
        if name == self.fails:
            raise self.NVMLError("NVML Shared Library Not Found")


def install(site: Path, name: str, version: str) -> None:
    """Put the metadata of a package into *site*, a folder on `sys.path`."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
