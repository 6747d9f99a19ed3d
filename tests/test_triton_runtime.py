"""The GPUs of a machine, read from NVML, and its packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from machines import H100, L40S, THOR, FakeNvml, install
from nemotron_triton.nvml import LocalGpu, read_nvml
from nemotron_triton.runtime import read_runtime


def test_a_machine_with_an_h100_and_tensorrt_llm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvml = FakeNvml(H100, H100)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "tensorrt_llm", "1.2.1")
    install(tmp_path, "tensorrt", "10.14.1.48")

    runtime = read_runtime()

    assert (runtime.sms, runtime.gpu_titles) == ((90, 90), "NVIDIA H100 80GB HBM3 (SM 90)")
    assert (runtime.tensorrt_llm, runtime.tensorrt, runtime.edge_llm) == ("1.2.1", "10.14.1.48", None)
    assert (runtime.nvml.driver, runtime.nvml.cuda, nvml.open) == ("590.44.01", "13.1", False)
    assert not {"tensorrt_llm", "tensorrt", "torch"} & set(sys.modules)


def test_nvml_may_tell_names_as_bytes_and_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(THOR, L40S))

    assert read_nvml().gpus == (LocalGpu("NVIDIA Thor", 110), LocalGpu("NVIDIA L40S", 89, 48_305_799_168))


@pytest.mark.parametrize(
    ("nvml", "problem", "remedy"),
    [
        (None, "nvidia-ml-py is not installed here, without which no GPU is seen", "pip install nvidia-ml-py"),
        (FakeNvml(fails="nvmlInit"), "this machine has no NVIDIA driver (NVML Shared", "install the driver, or start"),
        (FakeNvml(L40S, fails="nvmlDeviceGetCount"), "the NVIDIA driver cannot read its GPUs", "`nvidia-smi` shows"),
        (FakeNvml(), "this machine has an NVIDIA driver, but no GPU", "start the container with `--gpus all`"),
    ],
    ids=["no-package", "no-driver", "broken", "no-gpu"],
)
def test_the_reason_for_no_gpu_is_reported(
    monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml | None, problem: str, remedy: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    driver = read_nvml()

    assert driver.gpus == ()
    assert driver.problem
    assert driver.remedy
    assert driver.problem.startswith(problem)
    assert driver.remedy.startswith(remedy)
    assert nvml is None or not nvml.open
