"""What a machine can build and serve, what it lacks for which engine kind, and the fix for each. Pure.

Whether a model fits the GPU is `nemotron plan`'s to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nemotron_build.commands.versions import CUDA, EDGE_LLM, TENSORRT_LLM, TRITON_IMAGE
from nemotron_build.diagnosis import Check, Diagnosis, Task, check, tasks
from nemotron_build.kinds import KIND_NAMES, KINDS
from nemotron_build.machine import Machine
from nemotron_build.needs import VERBS, Need
from nemotron_build.planning.gpus import catalogue_entry, find_gpu, gpu_names
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
    return Diagnosis(tuple(result for judge in _JUDGES for result in judge(machine)))


def _packages(machine: Machine) -> Iterable[Check]:
    def installed(name: str, *modules: str, extra: str, needed: frozenset[Task], detail: str = "installed") -> Check:
        missing = [module for module in machine.missing_modules if module in modules]
        if missing:
            return check(name, f"missing: {', '.join(missing)}", how_to_install(extra), needed=needed)
        return check(name, detail, None, needed=needed)

    ready, both = "prompts can be rendered and tokenised", tasks("build", "serve")
    yield installed("packages", "jinja2", "tokenizers", extra="serve", needed=both, detail=ready)
    yield installed("safetensors", "safetensors", extra="build", needed=tasks("build"))
    yield installed("gguf", "gguf", "ml_dtypes", extra="cpu", needed=_tasks(Need.GGUF))
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
        yield check("GPU", str(nvml.problem or "none"), nvml.remedy, needed=needed, fails=needed)
        return
    old = nvml.cuda is not None and int(nvml.cuda.partition(".")[0]) < int(CUDA.partition(".")[0])
    newer = f"TensorRT-LLM {TENSORRT_LLM} is made for CUDA {CUDA}: install driver {_CUDA_DRIVER} or later"
    driver = f"{nvml.driver}, for CUDA up to {nvml.cuda}"
    yield check("driver", driver, newer if old else None, needed=needed, fails=frozenset())
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
    names = ", ".join(f"{gpu}: {entry.name if entry else 'not in the catalogue'}" for gpu, entry in entries.items())
    yield check("GPU", names, "; ".join(remedies) or None, needed=needed, fails=fails)


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
    yield check("container", detail, remedy, needed=needed)


def _tensorrt_llm(machine: Machine) -> Iterable[Check]:
    host, version = machine.host, machine.runtime.tensorrt_llm
    docker = machine.docker is not None and not machine.docker.problem and machine.docker.nvidia is not False
    key, required = release_key(version or ""), release_key(TENSORRT_LLM)
    fails: frozenset[Task] = frozenset()
    if not host.builds_engines:
        fails |= _tasks(Need.TRTLLM_ENGINES) | (frozenset() if docker else _tasks(Need.TRTLLM_BUILD))
    if key is None or required is None or key < required:
        fails |= _tasks(Need.LLM_API)
    if version is None:
        detail = "not installed" + (f"; engines are compiled in {TRITON_IMAGE}" if docker else "")
    elif host.builds_engines:
        detail = f"{version}, which compiles engines"
    elif host.tensorrt_llm is None:
        detail = f"{version}, without its trtllm-build on PATH"
    else:
        detail = f"{version}, which has no compiled engines any more: {TENSORRT_LLM} is the last release that has"
    needed = _tasks(Need.TRTLLM_BUILD, Need.TRTLLM_ENGINES, Need.LLM_API)
    yield check("TensorRT-LLM", detail, _INSIDE if fails else None, needed=needed, fails=fails)


def _edge_llm(machine: Machine) -> Iterable[Check]:
    version = machine.runtime.edge_llm
    usable = version is not None and machine.host.edge_llm
    detail = "not installed" if version is None else version + ("" if usable else ", without its commands on PATH")
    remedy = None if usable else f"pip install tensorrt-edgellm=={EDGE_LLM}, on the Jetson Thor"
    yield check("Edge-LLM", detail, remedy, needed=_tasks(Need.EDGE_LLM))


def _modelopt(machine: Machine) -> Iterable[Check]:
    for name, exists in machine.environments.items():
        detail = "its environment is made" + ("" if exists else " when it is first used (1.4 GB of packages)")
        possible = exists or machine.venv
        remedy = None if possible else "this Python cannot make environments: apt-get install python3-venv"
        kinds = [kind.name for kind in KINDS if kind.modelopt and kind.modelopt.name == name]
        yield check(name, detail, remedy, needed=frozenset(("build", kind) for kind in kinds))


def _tritonserver(machine: Machine) -> Iterable[Check]:
    for name, part in (("tritonserver", machine.tritonserver), ("libpython", machine.libpython)):
        if isinstance(part, ServerError):
            yield check(name, part.detail, part.remedy, needed=tasks("serve"))
        elif part is not None:
            yield check(name, part, None, needed=tasks("serve"))


def _shm(machine: Machine) -> Iterable[Check]:
    size = machine.shm_bytes
    remedy = None if size and size >= _SHM_BYTES else "start the container with `--shm-size=1g` or `--ipc=host`"
    detail = "there is no /dev/shm" if size is None else f"{size / 2**30:.1f} GiB in /dev/shm; NVIDIA advises 1 GiB"
    needed = tasks("serve")
    yield check("shared memory", detail, remedy, needed=needed, fails=needed if size is None else frozenset())


def _disk(machine: Machine) -> Iterable[Check]:
    short = any(place.free_bytes < _DISK_BYTES for place in machine.places)
    detail = ", ".join(f"{place.free_bytes / 1e9:.0f} GB free in {place.path}" for place in machine.places)
    remedy = f"a 4B model for a GPU may need {_DISK_BYTES / 1e9:.0f} GB; $XDG_CACHE_HOME moves the cache"
    yield check("disk", detail, remedy if short else None, needed=frozenset())


def _ports(machine: Machine) -> Iterable[Check]:
    taken = ", ".join(map(str, machine.taken_ports))
    detail = f"in use: {taken}" if taken else "8000, 8001 and 8002 are free"
    remedy = "`nemotron serve` takes others: --http-port, --grpc-port, --metrics-port" if taken else None
    yield check("ports", detail, remedy, needed=frozenset())


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
    """The engine kinds that are made for its SM, if the catalogue has a GPU of that SM to build for."""
    known = any(find_gpu(name).sm == gpu.sm for name in gpu_names())
    return {kind.name for kind in KINDS if known and gpu.sm in kind.sms}
