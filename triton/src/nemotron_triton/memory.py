"""Whether a bundle's engine fits into the memory that is free now, before it is loaded.

Counts what the manifest does: weights, KV cache and state, not what an engine takes on top for activations and itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from nemotron_triton.bundle import Manifest
from nemotron_triton.engine.registry import engine_class
from nemotron_triton.errors import EngineError
from nemotron_triton.nvml import read_nvml


def check_memory(manifest: Manifest, free_bytes: Callable[[Manifest], int | None] | None = None) -> None:
    """`EngineError`, with the numbers, when the engine cannot fit; *free_bytes* tells what is free, by default here.

    No tolerance: what is not counted makes the need larger. None, a place that does not tell, is no reason to refuse.
    """
    needed = needed_bytes(manifest)
    free = (free_bytes or free_memory)(manifest)
    if free is None or needed <= free:
        return
    memory = manifest.memory
    state = memory.state_bytes_per_sequence * manifest.max_batch_size
    raise EngineError(
        f"the engine needs {_mib(needed)} (weights {_mib(memory.weights_bytes)}, KV cache "
        f"{_mib(memory.kv_cache_bytes)}, state {_mib(state)}), and {_mib(free)} of "
        f"{engine_class(manifest.kind).memory_of} memory are free",
        "free some, or build the bundle with a smaller --max-batch-size or --max-seq-len",
    )


def needed_bytes(manifest: Manifest) -> int:
    """What the engine of *manifest* takes, at least."""
    memory = manifest.memory
    return memory.weights_bytes + memory.kv_cache_bytes + memory.state_bytes_per_sequence * manifest.max_batch_size


def free_memory(manifest: Manifest) -> int | None:
    """What is free where the engine of *manifest* would lie, None where nothing tells."""
    return engine_class(manifest.kind).free_memory()


def free_gpu_memory() -> int | None:
    """What is free on a GPU of this machine, None where nothing tells."""
    gpus = read_nvml().gpus
    # The emptiest one: if the engine is sent to another, it has to say itself that it does not fit.
    free = [gpu.free_bytes for gpu in gpus if gpu.free_bytes is not None]
    if gpus and not free:
        # A GPU that does not tell has no memory of its own, as on Jetson.
        return free_main_memory()
    return max(free, default=None)


def free_main_memory(root: Path = Path("/")) -> int | None:
    """What this process may still take of the machine under *root*: the kernel's estimate, and its control groups'.

    Pages of files count as free although a running engine maps its weights through them. So the same weights are
    not asked for twice when they are loaded again; different ones push the old out, which then are read once more.
    """
    return min(_limits(root), default=None)


def _limits(root: Path) -> Iterator[int]:
    available = _fields(root / "proc/meminfo").get("MemAvailable:")
    if available is not None:
        yield available * 1024
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith("0::/"):
            group = root / "sys/fs/cgroup" / line[len("0::/") :]
            for folder in (group, *group.parents):
                if folder == root:
                    break
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
    """The numbers of a file of names and numbers."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
