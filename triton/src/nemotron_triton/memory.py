"""Whether a bundle's engine fits into the free memory, before it is loaded.

Counts what the manifest does: weights, KV cache and state, but no activations, nor the runtime itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from nemotron_triton.bundle import Manifest
from nemotron_triton.errors import EngineError
from nemotron_triton.nvml import read_nvml


def check_memory(manifest: Manifest, free_bytes: int | None, owner: str) -> None:
    """`EngineError`, with the numbers, when the engine does not fit into the *free_bytes* of *owner* memory.

    No tolerance: what is not counted makes the need larger. None, where a machine does not report it, is no problem.
    """
    memory = manifest.memory
    state_bytes = memory.state_bytes_per_sequence * manifest.max_batch_size
    needed_bytes = memory.weights_bytes + memory.kv_cache_bytes + state_bytes
    if free_bytes is not None and needed_bytes > free_bytes:
        raise EngineError(
            f"the engine needs {_mib(needed_bytes)} (weights {_mib(memory.weights_bytes)}, KV cache "
            f"{_mib(memory.kv_cache_bytes)}, state {_mib(state_bytes)}), and {_mib(free_bytes)} of {owner} memory are "
            "free",
            "free some, or build the bundle with a smaller --max-batch-size or --max-seq-len",
        )


def free_gpu_memory() -> int | None:
    """The free bytes of a GPU of this machine, None where the driver does not report them."""
    gpus = read_nvml().gpus
    free = [gpu.free_bytes for gpu in gpus if gpu.free_bytes is not None]
    if gpus and not free:
        # The driver reports no memory for a GPU that shares the machine's, as on Jetson.
        return free_main_memory()
    # Of the emptiest GPU; should the engine be loaded on another, its runtime reports that it does not fit.
    return max(free, default=None)


def free_main_memory(root: Path = Path("/")) -> int | None:
    """The bytes that this process may still take on the machine under *root*, by the kernel and by control groups.

    The page cache counts as free although a running engine maps its weights through it. So a reload needs no second
    copy of the same weights; different weights evict the old ones, which are then read from disk again.
    """
    return min(_limits(root), default=None)


def _limits(root: Path) -> Iterator[int]:
    available = _fields(root / "proc/meminfo").get("MemAvailable:")
    if available is not None:
        yield available * 1024
    for line in _lines(root / "proc/self/cgroup"):
        if line.startswith("0::/"):
            group = root / "sys/fs/cgroup" / line.removeprefix("0::/")
            for folder in itertools.takewhile(root.__ne__, (group, *group.parents)):
                yield from _left(folder)


def _left(group: Path) -> Iterator[int]:
    """What the limit of one control group (version 2) leaves, if it has one."""
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # `max`: no limit
        return
    stat = _fields(group / "memory.stat")
    yield max(0, limit - used + stat.get("inactive_file", 0) + stat.get("active_file", 0))


def _fields(file: Path) -> dict[str, int]:
    """The numbers of a file with a name and a number in each line."""
    rows = [line.split() for line in _lines(file)]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
