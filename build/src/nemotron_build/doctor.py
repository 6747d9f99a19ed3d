"""What a machine can build and serve, what it lacks for which engine kind, and the fix for each. Pure.

Whether a model fits the GPU is `nemotron plan`'s to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nemotron_build.architecture import read_architecture
from nemotron_build.choice import decide
from nemotron_build.commands.versions import CUDA, EDGE_LLM, TENSORRT_LLM, TRITON_IMAGE
from nemotron_build.diagnosis import Check, Diagnosis, Task, check, tasks
from nemotron_build.errors import RefusedError
from nemotron_build.kinds import KIND_NAMES, KINDS
from nemotron_build.machine import Machine
from nemotron_build.needs import VERBS, Need
from nemotron_build.planning.gpus import catalogue_entry, find_gpu, gpu_names
from nemotron_triton.chat.profiles import DEFAULT_PROFILE, profile
from nemotron_triton.errors import ServerError
from nemotron_triton.extras import how_to_install
from nemotron_triton.nvml import LocalGpu
from nemotron_triton.releases import release_key

# NVIDIA's advice for tritonserver's containers.
_SHM_BYTES = 1 << 30
# The 4B is 9 GB in 16 bit, and a build keeps what each of its stages made.
_DISK_BYTES = 30 * 10**9
_CUDA_DRIVER = 580


def diagnose(machine: Machine) -> Diagnosis:
    """Judge *machine*."""
    return Diagnosis(tuple(found for judge in _JUDGES for found in judge(machine)))


def _packages(machine: Machine) -> Iterable[Check]:
    missing = machine.missing_modules
    base = [name for name in missing if name in ("jinja2", "tokenizers")]
    yield check(
        "packages",
        f"missing: {', '.join(base)}" if base else "prompts can be rendered and tokenised",
        how_to_install("serve") if base else None,
        needed=tasks("build", "serve"),
    )
    yield check(
        "safetensors",
        "missing" if "safetensors" in missing else "installed",
        how_to_install("build") if "safetensors" in missing else None,
        needed=tasks("build"),
    )
    gguf = [name for name in missing if name in ("gguf", "ml_dtypes")]
    yield check(
        "gguf",
        f"missing: {', '.join(gguf)}" if gguf else "installed",
        how_to_install("cpu") if gguf else None,
        needed=_tasks(Need.GGUF),
    )
    version = machine.runtime.llama_cpp
    yield check(
        "llama.cpp",
        (f"xllamacpp {version}" if version else "xllamacpp is missing")
        + ("" if machine.openmp else ", without libgomp.so.1"),
        how_to_install("cpu") if not version else None if machine.openmp else "apt-get install libgomp1",
        needed=_tasks(Need.LLAMA_CPP),
    )


def _gpus(machine: Machine) -> Iterable[Check]:
    nvml = machine.runtime.nvml
    needed = _tasks(Need.GPU)
    if not nvml.gpus:
        yield Check(name="GPU", detail=str(nvml.problem or "none"), remedy=nvml.remedy, needed=needed, fails=needed)
        return
    old = nvml.cuda is not None and int(nvml.cuda.partition(".")[0]) < int(CUDA.partition(".")[0])
    yield Check(
        name="driver",
        detail=f"{nvml.driver}, for CUDA up to {nvml.cuda}",
        remedy=f"TensorRT-LLM {TENSORRT_LLM} is made for CUDA {CUDA}: install driver {_CUDA_DRIVER} or later"
        if old
        else None,
        needed=needed,
    )
    able = {kind for gpu in nvml.gpus for kind in _kinds_of(gpu)}
    entries = {gpu: catalogue_entry(gpu) for gpu in dict.fromkeys(nvml.gpus)}
    fails = frozenset(task for task in needed if task[1] not in able)
    unknown = [str(gpu) for gpu, entry in entries.items() if entry is None]
    lacking = sorted({kind for _, kind in fails}, key=KIND_NAMES.index)
    remedies = []
    if unknown:
        remedies.append(f"--gpu auto does not know {' and '.join(unknown)}: name the nearest of `nemotron gpus`")
    if lacking:
        remedies.append(f"{' and '.join(lacking)} engines run on other GPUs: see `nemotron plan --all-gpus`")
    yield Check(
        name="GPU",
        detail=", ".join(f"{gpu}: {entry.name if entry else 'not in the catalogue'}" for gpu, entry in entries.items()),
        remedy="; ".join(remedies) or None,
        needed=needed,
        fails=fails,
    )


def _container(machine: Machine) -> Iterable[Check]:
    docker, host = machine.docker, machine.host
    needed = frozenset() if host.builds_engines else _tasks(Need.TRTLLM_BUILD)
    if docker is None:
        detail, remedy = "docker is not installed", f"install docker and NVIDIA's container toolkit, or {_INSIDE}"
    elif docker.problem:
        detail = f"docker is installed, and its daemon cannot be used: {docker.problem}"
        remedy = "start it (systemctl start docker), or join its group (usermod -aG docker USER)"
    elif docker.nvidia is False:
        detail = f"docker {docker.version}, without NVIDIA's container toolkit"
        remedy = "install nvidia-container-toolkit, then `nvidia-ctk runtime configure --runtime=docker`"
    else:
        seen = "with NVIDIA's container toolkit" if docker.nvidia else "whether with NVIDIA's toolkit cannot be told"
        detail, remedy = f"docker {docker.version}, {seen}", None
    if host.builds_engines and docker is None:
        remedy = None
    yield Check(
        name="container",
        detail=detail,
        remedy=remedy,
        needed=needed,
        fails=needed if remedy else frozenset(),
    )


def _tensorrt_llm(machine: Machine) -> Iterable[Check]:
    host, version = machine.host, machine.runtime.tensorrt_llm
    docker = machine.docker is not None and not machine.docker.problem and machine.docker.nvidia is not False
    key, wanted = release_key(version or ""), release_key(TENSORRT_LLM)
    fails: frozenset[Task] = frozenset()
    if not host.builds_engines:
        fails |= _tasks(Need.TRTLLM_ENGINES) | (frozenset() if docker else _tasks(Need.TRTLLM_BUILD))
    if key is None or wanted is None or key < wanted:
        fails |= _tasks(Need.LLM_API)
    if version is None:
        detail = "not installed" + (f"; engines are compiled in {TRITON_IMAGE}" if docker else "")
    elif host.builds_engines:
        detail = f"{version}, which compiles engines"
    elif host.tensorrt_llm is None:
        detail = f"{version}, without its trtllm-build on PATH"
    else:
        detail = f"{version}, which has no compiled engines any more: {TENSORRT_LLM} is the last release that has"
    yield Check(
        name="TensorRT-LLM",
        detail=detail,
        remedy=_INSIDE if fails else None,
        needed=_tasks(Need.TRTLLM_BUILD, Need.TRTLLM_ENGINES, Need.LLM_API),
        fails=fails,
    )


def _edge_llm(machine: Machine) -> Iterable[Check]:
    version = machine.runtime.edge_llm
    there = version is not None and machine.host.edge_llm
    detail = "not installed" if version is None else version + ("" if there else ", without its commands on PATH")
    yield check(
        "Edge-LLM",
        detail,
        None if there else f"pip install tensorrt-edgellm=={EDGE_LLM}, on the Jetson Thor",
        needed=_tasks(Need.EDGE_LLM),
    )


def _modelopt(machine: Machine) -> Iterable[Check]:
    for name, made in machine.environments.items():
        ready = made or machine.venv
        yield check(
            name,
            "its environment is made" if made else "its environment is made when it is first used (1.4 GB of packages)",
            None if ready else "this Python cannot make environments: apt-get install python3-venv",
            needed=frozenset(("build", kind.name) for kind in KINDS if kind.modelopt and kind.modelopt.name == name),
        )


def _tritonserver(machine: Machine) -> Iterable[Check]:
    for name, found in (("tritonserver", machine.tritonserver), ("libpython", machine.libpython)):
        if isinstance(found, ServerError):
            yield check(name, found.detail, found.remedy, needed=tasks("serve"))
        elif found is not None:
            yield check(name, found, None, needed=tasks("serve"))


def _shm(machine: Machine) -> Iterable[Check]:
    size = machine.shm_bytes
    remedy = None if size and size >= _SHM_BYTES else "start the container with `--shm-size=1g` or `--ipc=host`"
    yield Check(
        name="shared memory",
        detail="there is no /dev/shm" if size is None else f"{size / 2**30:.1f} GiB in /dev/shm; NVIDIA advises 1 GiB",
        remedy=remedy,
        needed=tasks("serve"),
        fails=tasks("serve") if size is None else frozenset(),
    )


def _disk(machine: Machine) -> Iterable[Check]:
    short = [place for place in machine.places if place.free_bytes < _DISK_BYTES]
    yield Check(
        name="disk",
        detail=", ".join(f"{place.free_bytes / 1e9:.0f} GB free in {place.path}" for place in machine.places),
        remedy=f"a 4B model for a GPU may need {_DISK_BYTES / 1e9:.0f} GB; $XDG_CACHE_HOME moves the cache"
        if short
        else None,
    )


def _ports(machine: Machine) -> Iterable[Check]:
    taken = ", ".join(map(str, machine.taken_ports))
    yield Check(
        name="ports",
        detail=f"in use: {taken}" if taken else "8000, 8001 and 8002 are free",
        remedy="`nemotron serve` takes others: --http-port, --grpc-port, --metrics-port" if taken else None,
    )


_INSIDE = f"run nemotron inside of {TRITON_IMAGE}, which has TensorRT-LLM {TENSORRT_LLM}"
_JUDGES: tuple[Callable[[Machine], Iterable[Check]], ...] = (
    _packages,
    _gpus,
    _container,
    _tensorrt_llm,
    _edge_llm,
    _modelopt,
    _tritonserver,
    _shm,
    _disk,
    _ports,
)


def _tasks(*needs: Need) -> frozenset[Task]:
    """What cannot be done without one of *needs*."""
    return frozenset((verb, kind.name) for kind in KINDS for verb in VERBS if kind.needs[verb] & {*needs})


def _kinds_of(gpu: LocalGpu) -> set[str]:
    """The engine kinds for GPUs of its SM, by the rules for the smallest demand: 16-bit weights of the main model."""
    architecture = read_architecture(profile(DEFAULT_PROFILE).architecture)
    found: set[str] = set()
    for known in map(find_gpu, gpu_names()):
        for kind in KIND_NAMES:
            if known.sm == gpu.sm and kind not in found:
                try:
                    decide(known, architecture, precision="fp16", kind=kind)
                except RefusedError:
                    continue
                found.add(kind)
    return found
