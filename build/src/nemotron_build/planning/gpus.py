"""The GPUs that are known (`gpus.yaml`), and which one this machine has. One GPU per engine; no multi-GPU plans."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemotron_build.errors import SettingError, UnsupportedError
from nemotron_build.precisions import AUTO
from nemotron_build.strict_yaml import load_yaml
from nemotron_client.spelling import did_you_mean
from nemotron_triton.nvml import LocalGpu, read_nvml

_FILE = Path(__file__).with_name("gpus.yaml")
_MIB = 1 << 20
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU as a program sees it.

    `memory_bytes` is what may be used of it, `bandwidth` in bytes/s, `rates` dense operations/s by arithmetic (bf16,
    fp8, int8, int4, fp4), None where there is no such arithmetic; `sm` is None for the CPU. `sources` says where each
    number is from, `unverified` which of them were not looked up again. `system_bytes` of a unified memory
    are left to the host.
    """

    name: str
    title: str
    sm: int | None
    memory_bytes: int
    bandwidth: float | None
    rates: Mapping[str, float | None]
    sources: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    nvml_names: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    system_bytes: int = 0

    def __str__(self) -> str:
        return self.title if self.sm is None else f"{self.title} (SM{self.sm})"


def gpu_names() -> list[str]:
    """The names of the catalogue, in its order."""
    return list(_catalogue())


def find_gpu(name: str) -> Gpu:
    """The GPU called *name*, any case, or the local one for `auto`; `SettingError` lists what is known."""
    alias = name.strip().lower()
    if alias == AUTO:
        return local_gpu()
    by_name = {alias: gpu for gpu in _catalogue().values() for alias in (gpu.name, *gpu.aliases)}
    if alias not in by_name:
        hint = f"{did_you_mean(alias, by_name)} known: {AUTO}, {', '.join(gpu_names())}"
        raise SettingError(f"--gpu {name} is not known; {hint.lstrip()}")
    return by_name[alias]


def local_gpu() -> Gpu:
    """The GPU of this machine, by NVML; its own report of the memory wins over the catalogue's.

    `UnsupportedError` when there is no NVML, no GPU, several kinds of GPU, or one that is not in the catalogue.
    """
    nvml = read_nvml()
    if not nvml.gpus:
        raise UnsupportedError(f"--gpu auto: {nvml.problem}; name the GPU: {', '.join(gpu_names())}")
    if len(kinds := sorted({local.title for local in nvml.gpus})) > 1:
        raise UnsupportedError(f"--gpu auto finds several kinds of GPU here ({', '.join(kinds)}); name one")
    local = nvml.gpus[0]
    if gpu := catalogue_entry(local):
        known = local.memory_bytes
        return replace(gpu, memory_bytes=known - gpu.system_bytes if known else gpu.memory_bytes)
    raise UnsupportedError(
        f"--gpu auto finds {local}, which is not in the catalogue; name the GPU that is nearest to it: "
        + ", ".join(f"{gpu.name} (SM{gpu.sm})" for gpu in _catalogue().values() if gpu.sm)
    )


def catalogue_entry(local: LocalGpu) -> Gpu | None:
    """What the catalogue has of a GPU of this machine."""
    known = _catalogue().values()
    return next((gpu for gpu in known if local.title in gpu.nvml_names and gpu.sm == local.sm), None)


@functools.cache
def _catalogue() -> dict[str, Gpu]:
    entries: dict[str, dict[str, Any]] = load_yaml(_FILE.read_text(encoding="utf-8"), trusted=True)
    return {name: _read(name, entry) for name, entry in entries.items()}


def _read(name: str, entry: dict[str, Any]) -> Gpu:
    system_bytes = entry.pop("system_mib", 0) * _MIB
    memory_mib, bandwidth = entry.pop("memory_mib"), entry.pop("bandwidth_gb_s")
    rates = {arithmetic: rate and rate * 1e12 for arithmetic, rate in entry.pop("rates").items()}
    lists: dict[str, Any] = {key: tuple(entry.pop(key, ())) for key in ("aliases", "nvml_names", "unverified")}
    return Gpu(
        name=name,
        memory_bytes=(memory_mib * _MIB if memory_mib else _host_memory()) - system_bytes,
        bandwidth=bandwidth and bandwidth * 1e9,
        rates=rates,
        system_bytes=system_bytes,
        **lists,
        **entry,
    )


def _host_memory() -> int:
    """Memory of this machine, or of the container it is, bytes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = _CGROUP_LIMIT.read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total
