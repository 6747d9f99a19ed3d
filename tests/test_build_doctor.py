"""`nemotron doctor` says what a machine can build and serve, and what to do about the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from machines import H100, FakeNvml, install
from nemotron_build.diagnosis import Check, Diagnosis
from nemotron_build.docker import Docker
from nemotron_build.doctor import diagnose
from nemotron_build.host import Host
from nemotron_build.kinds import KIND_NAMES as KINDS
from nemotron_build.machine import Machine, Place, read_machine
from nemotron_build.needs import VERBS
from nemotron_cli import main
from nemotron_triton.errors import ServerError
from nemotron_triton.nvml import LocalGpu, Nvml
from nemotron_triton.runtime import Runtime
from nemotron_triton.tritonserver import Installed

CONTAINER = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
INSIDE = f"run nemotron inside of {CONTAINER}, which has TensorRT-LLM 1.2.1"
H100_GPU = LocalGpu("NVIDIA H100 80GB HBM3", 90, 85_520_809_984)
NO_GPU = Nvml(problem="this machine has no NVIDIA driver (none)", remedy="install the driver")
LAPTOP = Machine(
    host=Host(),
    runtime=Runtime(nvml=NO_GPU, llama_cpp="2026.10"),
    docker=None,
    tritonserver="nvidia-pytriton 0.7.0",
    libpython="/usr/lib/libpython3.11.so.1.0",
    missing_modules=(),
    openmp=True,
    venv=True,
    environments={"modelopt-0.37": False, "modelopt-0.47": False},
    shm_bytes=8 << 30,
    places=(Place(Path(), 10**12),),
    taken_ports=(),
)


def gpu_host(*gpus: LocalGpu, tensorrt_llm: str | None = "1.2.1", cuda: str = "13.1", **changes: Any) -> Machine:
    """A machine with *gpus*, on which every engine kind that they support can run."""
    nvml = Nvml(gpus=gpus, driver="590.44.01", cuda=cuda)
    return replace(
        LAPTOP,
        host=Host(sms=tuple(gpu.sm for gpu in gpus), tensorrt_llm=tensorrt_llm),
        runtime=Runtime(nvml=nvml, tensorrt_llm=tensorrt_llm, llama_cpp="2026.10"),
        **changes,
    )


def nothing(name: str) -> None:
    """A PATH without any program."""


def named(diagnosis: Diagnosis, name: str) -> Check:
    (match,) = [check for check in diagnosis.checks if check.name == name]
    return match


def failing(check: Check) -> set[str]:
    return {f"{verb} {kind}" for verb, kind in check.fails}


def can(diagnosis: Diagnosis) -> set[str]:
    return {f"{verb} {kind}" for verb in VERBS for kind in KINDS if not diagnosis.missing(verb, kind)}


def test_a_laptop_builds_and_serves_cpu_engines() -> None:
    diagnosis = diagnose(LAPTOP)

    assert diagnosis.ok
    assert can(diagnosis) == {"build cpu", "serve cpu", "build pytorch"}


def test_a_gpu_host_with_tensorrt_llm_needs_no_docker() -> None:
    diagnosis = diagnose(gpu_host(H100_GPU))

    assert can(diagnosis) == {f"{verb} {kind}" for verb in VERBS for kind in ("cpu", "tensorrt", "pytorch")}
    assert named(diagnosis, "GPU").detail == "NVIDIA H100 80GB HBM3 (SM 90): h100"
    assert named(diagnosis, "driver").detail == "590.44.01, for CUDA up to 13.1"
    assert named(diagnosis, "TensorRT-LLM").detail == "1.2.1, which compiles engines"
    assert named(diagnosis, "container").ok


def test_no_gpu_is_reported_in_the_words_of_the_driver() -> None:
    check = named(diagnose(LAPTOP), "GPU")

    assert (check.detail, check.remedy) == ("this machine has no NVIDIA driver (none)", "install the driver")
    assert failing(check) == {"build tensorrt", "serve tensorrt", "serve pytorch", "build edge", "serve edge"}


def test_a_gpu_carries_some_kinds_only() -> None:
    thor = diagnose(gpu_host(LocalGpu("NVIDIA Thor", 110)))

    assert named(thor, "GPU").detail == "NVIDIA Thor (SM 110): jetson-thor"
    assert failing(named(thor, "GPU")) == {"build tensorrt", "serve tensorrt", "serve pytorch"}
    assert named(thor, "GPU").remedy == (
        "tensorrt and pytorch engines run on other GPUs: see `nemotron plan --all-gpus`"
    )
    assert failing(named(diagnose(gpu_host(H100_GPU)), "GPU")) == {"build edge", "serve edge"}


def test_a_gpu_that_is_not_in_the_catalogue_is_named() -> None:
    check = named(diagnose(gpu_host(LocalGpu("NVIDIA H200", 90))), "GPU")

    assert check.detail == "NVIDIA H200 (SM 90): not in the catalogue"
    assert check.remedy == (
        "--gpu auto does not know NVIDIA H200 (SM 90): name the nearest of `nemotron gpus`; "
        "edge engines run on other GPUs: see `nemotron plan --all-gpus`"
    )
    assert "serve tensorrt" not in failing(check)


def test_a_gpu_that_is_too_old_carries_nothing() -> None:
    check = named(diagnose(gpu_host(LocalGpu("NVIDIA T4", 75))), "GPU")

    assert failing(check) == {"build tensorrt", "serve tensorrt", "serve pytorch", "build edge", "serve edge"}


def test_an_old_driver_is_advice() -> None:
    check = named(diagnose(gpu_host(H100_GPU, cuda="12.4")), "driver")

    assert check.remedy == "TensorRT-LLM 1.2.1 is made for CUDA 13.1: install driver 580 or later"
    assert failing(check) == set()


@pytest.mark.parametrize(
    ("docker", "detail", "remedy"),
    [
        (None, "docker is not installed", f"install docker and NVIDIA's container toolkit, or {INSIDE}"),
        (
            Docker(problem="permission denied"),
            "docker is installed, and its daemon cannot be used: permission denied",
            "start it (systemctl start docker), or join its group (usermod -aG docker USER)",
        ),
        (
            Docker(version="28.2", nvidia=False),
            "docker 28.2, without NVIDIA's container toolkit",
            "install nvidia-container-toolkit, then `nvidia-ctk runtime configure --runtime=docker`",
        ),
        (Docker(version="28.2", nvidia=True), "docker 28.2, with NVIDIA's container toolkit", None),
        (Docker(version="28.2"), "docker 28.2, whether with NVIDIA's toolkit cannot be told", None),
    ],
)
def test_without_tensorrt_llm_engines_are_compiled_in_a_container(
    docker: Docker | None, detail: str, remedy: str | None
) -> None:
    diagnosis = diagnose(gpu_host(H100_GPU, tensorrt_llm=None, docker=docker))

    check = named(diagnosis, "container")
    assert (check.detail, check.remedy) == (detail, remedy)
    assert failing(check) == (set() if remedy is None else {"build tensorrt"})
    assert ("build tensorrt" in can(diagnosis)) == (remedy is None)
    assert named(diagnosis, "TensorRT-LLM").remedy == INSIDE
    assert {"serve tensorrt", "serve pytorch"} <= failing(named(diagnosis, "TensorRT-LLM"))


def test_a_tensorrt_llm_without_engines_serves_pytorch_only() -> None:
    diagnosis = diagnose(gpu_host(H100_GPU, tensorrt_llm="1.3.0rc21"))

    check = named(diagnosis, "TensorRT-LLM")
    assert check.detail == "1.3.0rc21, which has no compiled engines any more: 1.2.1 is the last release that has"
    assert failing(check) == {"build tensorrt", "serve tensorrt"}
    assert {"build pytorch", "serve pytorch"} <= can(diagnosis)


def test_a_tensorrt_llm_without_its_tools_is_reported() -> None:
    host = gpu_host(H100_GPU)

    check = named(diagnose(replace(host, host=replace(host.host, tensorrt_llm=None))), "TensorRT-LLM")

    assert check.detail == "1.2.1, without its trtllm-build on PATH"


def test_a_thor_with_edge_llm_builds_and_serves_edge_engines() -> None:
    thor = gpu_host(LocalGpu("NVIDIA Thor", 110))
    ready = replace(thor, host=replace(thor.host, edge_llm=True), runtime=replace(thor.runtime, edge_llm="0.11.0"))

    assert {"build edge", "serve edge"} <= can(diagnose(ready))
    assert named(diagnose(thor), "Edge-LLM").remedy == "pip install tensorrt-edgellm==0.11.0, on the Jetson Thor"
    assert named(diagnose(replace(ready, host=thor.host)), "Edge-LLM").detail == "0.11.0, without its commands on PATH"


NO_SERVER = ServerError("there is no tritonserver here", "use NVIDIA's Triton container")
NO_LIBRARY = ServerError("no libpython", "`apt-get install libpython3.11`")
SERVE_ALL = {f"serve {kind}" for kind in KINDS}
BUILD_ALL = {f"build {kind}" for kind in KINDS}


@pytest.mark.parametrize(
    ("changes", "name", "detail", "remedy", "fails"),
    [
        ({"tritonserver": NO_SERVER}, "tritonserver", NO_SERVER.detail, NO_SERVER.remedy, SERVE_ALL),
        ({"libpython": NO_LIBRARY}, "libpython", NO_LIBRARY.detail, NO_LIBRARY.remedy, SERVE_ALL),
        (
            {"missing_modules": ("jinja2", "tokenizers")},
            "packages",
            "missing: jinja2, tokenizers",
            "pip install '.[serve]' from a checkout of nemotron",
            SERVE_ALL | BUILD_ALL,
        ),
        (
            {"missing_modules": ("safetensors",)},
            "safetensors",
            "missing: safetensors",
            "pip install '.[build]' from a checkout of nemotron",
            BUILD_ALL,
        ),
        (
            {"missing_modules": ("gguf", "ml_dtypes")},
            "gguf",
            "missing: gguf, ml_dtypes",
            "pip install '.[cpu]' from a checkout of nemotron",
            {"build cpu"},
        ),
        (
            {"runtime": replace(LAPTOP.runtime, llama_cpp=None)},
            "llama.cpp",
            "xllamacpp is missing",
            "pip install '.[cpu]' from a checkout of nemotron",
            {"serve cpu"},
        ),
        (
            {"openmp": False},
            "llama.cpp",
            "xllamacpp 2026.10, without libgomp.so.1",
            "apt-get install libgomp1",
            {"serve cpu"},
        ),
        (
            {"venv": False},
            "modelopt-0.37",
            "its environment is made when it is first used (1.4 GB of packages)",
            "this Python cannot make environments: apt-get install python3-venv",
            {"build tensorrt"},
        ),
        (
            {"venv": False},
            "modelopt-0.47",
            "its environment is made when it is first used (1.4 GB of packages)",
            "this Python cannot make environments: apt-get install python3-venv",
            {"build pytorch"},
        ),
        (
            {"shm_bytes": None},
            "shared memory",
            "there is no /dev/shm",
            "start the container with `--shm-size=1g` or `--ipc=host`",
            SERVE_ALL,
        ),
        (
            {"shm_bytes": 64 << 20},
            "shared memory",
            "0.1 GiB in /dev/shm; NVIDIA advises 1 GiB",
            "start the container with `--shm-size=1g` or `--ipc=host`",
            set(),
        ),
        (
            {"places": (Place(Path("/here"), 10**12), Place(Path("/cache"), 5 * 10**9))},
            "disk",
            "1000 GB free in /here, 5 GB free in /cache",
            "a 4B model for a GPU may need 30 GB; $XDG_CACHE_HOME moves the cache",
            set(),
        ),
        (
            {"taken_ports": (8000, 8002)},
            "ports",
            "in use: 8000, 8002",
            "`nemotron serve` takes others: --http-port, --grpc-port, --metrics-port",
            set(),
        ),
    ],
)
def test_what_is_missing_has_a_fix(
    changes: dict[str, Any], name: str, detail: str, remedy: str, fails: set[str]
) -> None:
    check = named(diagnose(replace(LAPTOP, **changes)), name)

    assert (check.ok, check.detail, check.remedy) == (False, detail, remedy)
    assert failing(check) == fails
    assert check.fails <= check.needed


def test_an_environment_that_is_made_needs_no_venv() -> None:
    machine = replace(LAPTOP, venv=False, environments={"modelopt-0.37": True, "modelopt-0.47": False})

    assert named(diagnose(machine), "modelopt-0.37").ok


def test_a_machine_for_which_nothing_works_is_not_all_right() -> None:
    diagnosis = diagnose(replace(LAPTOP, tritonserver=NO_SERVER, missing_modules=("gguf",)))

    assert not diagnosis.ok
    assert diagnosis.missing("build", "cpu") == ["gguf"]
    assert diagnosis.missing("serve", "cpu") == ["tritonserver"]


def test_a_machine_with_an_h100_and_tensorrt_llm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(H100))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    install(tmp_path / "site", "tensorrt_llm", "1.2.1")

    machine = read_machine(
        which={"trtllm-build": "/usr/local/bin/trtllm-build"}.get,
        free=lambda port: port != 8001,
        module=lambda name: name != "ensurepip",
        library=lambda name: False,
        locate=lambda: Installed(binary=Path("/opt/tritonserver/bin/tritonserver")),
        shm=tmp_path / "none",
        folders=(tmp_path / "a" / "b",),
    )

    assert (machine.host.sms, machine.host.tensorrt_llm, machine.host.builds_engines) == ((90,), "1.2.1", True)
    assert (machine.docker, machine.tritonserver, machine.libpython) == (
        None,
        "/opt/tritonserver/bin/tritonserver",
        None,
    )
    assert (machine.venv, machine.openmp, machine.shm_bytes, machine.taken_ports) == (False, False, None, (8001,))
    assert machine.environments == {"modelopt-0.37": False, "modelopt-0.47": False}
    assert machine.places[0].free_bytes > 0
    assert list(tmp_path.glob("a")) == []
    assert "build tensorrt" not in can(diagnose(machine))
    assert "serve tensorrt" not in can(diagnose(replace(machine, missing_modules=("tokenizers",))))
    assert "serve tensorrt" in can(diagnose(replace(machine, shm_bytes=1 << 30)))


def test_on_this_machine_cpu_engines_work() -> None:
    command = [sys.executable, "-m", "nemotron_cli", "doctor"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == [*KINDS, "found", "here"]
    by_name = {line[:14].strip(): line[14:].split() for line in lines}
    assert by_name["can build"][KINDS.index("cpu")] == by_name["can serve"][KINDS.index("cpu")] == "yes"


def test_json_is_one_document() -> None:
    result = CliRunner().invoke(main, ["doctor", "--json"])

    document = json.loads(result.stdout)
    assert list(document) == ["ok", "kinds", "checks"]
    assert document["ok"] is True
    assert document["kinds"]["cpu"] == {"build": {"ok": True, "missing": []}, "serve": {"ok": True, "missing": []}}
    assert "TensorRT-LLM" in document["kinds"]["tensorrt"]["serve"]["missing"]
    keys = ["name", "ok", "detail", "remedy", "needed_for", "missing_for"]
    assert all(list(check) == keys and check["ok"] == (check["remedy"] is None) for check in document["checks"])


def test_a_machine_that_can_nothing_is_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)

    result = CliRunner().invoke(main, ["doctor"])

    assert result.exit_code == 1
    assert "  gguf: pip install '.[cpu]' from a checkout of nemotron\n" in result.stdout
