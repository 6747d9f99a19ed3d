"""Whether an engine fits into the free memory of a machine, a control group or a GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from machines import H100, THOR, FakeNvml
from nemotron_triton.bundle import Bundle, Manifest, Memory
from nemotron_triton.engine.interface import engine_class
from nemotron_triton.errors import EngineError
from nemotron_triton.memory import check_memory, free_main_memory

MIB = 1 << 20


@pytest.fixture
def manifest(bundle: Bundle) -> Manifest:
    """A bundle that needs 1000 MiB."""
    memory = Memory(
        weights_bytes=600 * MIB, kv_bytes_per_token=MIB, kv_cache_bytes=380 * MIB, state_bytes_per_sequence=5 * MIB
    )
    return replace(bundle.manifest, memory=memory, max_batch_size=4)


def test_what_does_not_fit_is_refused_with_the_numbers(manifest: Manifest) -> None:
    with pytest.raises(EngineError) as caught:
        check_memory(manifest, 999 * MIB, "this machine's")

    assert str(caught.value) == (
        "the engine needs 1,000 MiB (weights 600 MiB, KV cache 380 MiB, state 20 MiB), and 999 MiB of this machine's "
        "memory are free; free some, or build the bundle with a smaller --max-batch-size or --max-seq-len"
    )


@pytest.mark.parametrize("free", [1000 * MIB, None])
def test_what_fits_or_cannot_be_told_is_loaded(manifest: Manifest, free: int | None) -> None:
    check_memory(manifest, free, "this machine's")


def test_this_machine_has_room_for_the_demo_model(bundle: Bundle) -> None:
    engine = engine_class(bundle.manifest.kind)

    check_memory(bundle.manifest, engine.free_memory(), engine.memory_of)


def test_a_machine_has_what_its_kernel_says(tmp_path: Path) -> None:
    machine(tmp_path, available_mib=500)

    assert free_main_memory(tmp_path) == 500 * MIB


def test_no_kernel_that_tells_is_no_number(tmp_path: Path) -> None:
    assert free_main_memory(tmp_path) is None


@pytest.mark.parametrize(
    ("group", "limited", "free_mib"),
    [
        ("", "", 300),  # a container, which sees its own group as the root
        ("system.slice/nemotron.service", "system.slice/nemotron.service", 300),
        ("system.slice/nemotron.service", "system.slice", 300),
        ("elsewhere", "system.slice", 500),
    ],
)
def test_the_limit_of_a_control_group_counts_and_its_file_pages_do_not(
    tmp_path: Path, group: str, limited: str, free_mib: int
) -> None:
    machine(tmp_path, available_mib=500, group=group)
    folder = tmp_path / "sys/fs/cgroup" / limited
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{400 * MIB}\n")
    (folder / "memory.current").write_text(f"{250 * MIB}\n")
    (folder / "memory.stat").write_text(f"anon {100 * MIB}\ninactive_file {50 * MIB}\nactive_file {100 * MIB}\n")

    assert free_main_memory(tmp_path) == free_mib * MIB


def test_a_group_without_a_limit_limits_nothing(tmp_path: Path) -> None:
    machine(tmp_path, available_mib=500)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("1\n")

    assert free_main_memory(tmp_path) == 500 * MIB


def test_a_gpu_engine_counts_the_memory_of_the_emptiest_gpu(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(H100, H100))

    engine = engine_class("tensorrt")

    free = engine.free_memory()

    assert free is not None
    assert 0 < free < 80 << 30
    with pytest.raises(EngineError, match=r"MiB of the GPU's memory are free"):
        check_memory(replace(manifest, memory=replace(manifest.memory, weights_bytes=80 << 30)), free, engine.memory_of)


def test_a_gpu_without_memory_of_its_own_counts_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(THOR))

    free = engine_class("edge").free_memory()

    assert free is not None
    assert free > 100 * MIB


def machine(root: Path, *, available_mib: int, group: str = "") -> None:
    """A machine's /proc, in a process of *group*."""
    (root / "proc/self").mkdir(parents=True)
    meminfo = f"MemTotal: 9999999 kB\nMemFree: 1 kB\nMemAvailable:   {available_mib * 1024} kB\nHugePages_Total: 0\n"
    (root / "proc/meminfo").write_text(meminfo)
    (root / "proc/self/cgroup").write_text(f"4:memory:/old\n0::/{group}\n")
