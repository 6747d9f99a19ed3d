"""Whether a bundle can be loaded: one set of rules, for `nemotron verify` and for the server before it loads.

Reads the manifest and an engine's own config.json; its files' digests are `Bundle.problems`. What a machine has is a
parameter (`Runtime`). The details are predicates, to be read after "the bundle".
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nemotron_triton.bundle import MAX_MANIFEST_BYTES, Bundle, Manifest
from nemotron_triton.errors import BundleError, ProfileError
from nemotron_triton.extras import how_to_install
from nemotron_triton.releases import FIRST_WITHOUT_ENGINES, release_key, same_release
from nemotron_triton.runtime import Runtime

# TensorRT-LLM's PyTorch backend, and the arithmetic of some precisions, need at least this SM.
_PYTORCH_SM = 80
_ARITHMETIC_SM = {"fp8": 89, "fp8-rowwise": 89, "w4a8-awq": 89, "nvfp4": 100}
# The first release whose LLM API takes the arguments that bundles carry.
_FIRST_LLM_API = "1.2.1"


@dataclass(frozen=True)
class Finding:
    """One rule and what it found; a problem has a `remedy`, what is all right has none."""

    name: str
    detail: str
    remedy: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against loading."""
        return self.remedy is None


def check(bundle: Bundle, runtime: Runtime | None) -> list[Finding]:
    """Every rule, what explains most first: of *bundle* alone, and with *runtime* of the machine that is to load it."""
    machine = check_machine(bundle.manifest, runtime) if runtime else []
    return [*check_bundle(bundle), *machine, *check_engine(bundle)]


def check_bundle(bundle: Bundle) -> list[Finding]:
    """Whether it is finished, and for a model that is known here."""
    return [_state(bundle), _profile(bundle)]


def check_machine(manifest: Manifest, runtime: Runtime) -> list[Finding]:
    """Whether the machine of *runtime* can load it: its GPU, and the versions of what runs the engine."""
    checks = {"cpu": _cpu, "tensorrt": _tensorrt, "pytorch": _pytorch, "edge": _edge}
    return list(checks[manifest.kind](manifest, runtime))


def check_engine(bundle: Bundle) -> list[Finding]:
    """Whether the config.json that `trtllm-build` wrote names the TensorRT-LLM that the manifest names."""
    manifest = bundle.manifest
    if manifest.kind != "tensorrt" or manifest.state != "complete":
        return []
    name, again = f"{manifest.engine_file}/config.json", "build or copy the bundle again"
    try:
        file = bundle.file(name)
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError(f"it has more than {MAX_MANIFEST_BYTES >> 20} MiB")
        config = json.loads(file.read_text(encoding="utf-8"))
    except BundleError:
        return [Finding("engine", f"has no {name}, which says what made the engine", again)]
    except (OSError, ValueError, RecursionError) as error:
        return [Finding("engine", f"has an {name} that cannot be read: {error}", again)]
    version = config.get("version") if isinstance(config, dict) else None
    recorded = manifest.tool_versions.get("tensorrt_llm")
    if not isinstance(version, str) or recorded is None or not same_release(version, recorded):
        says = f"says TensorRT-LLM {version}" if isinstance(version, str) else "names no version"
        return [
            Finding("engine", f"has an {name} that {says}, and a manifest that says {recorded or 'nothing'}", again)
        ]
    return [Finding("engine", f"has an engine of TensorRT-LLM {version}, as its manifest says")]


def refuse(bundle: Bundle, findings: Sequence[Finding]) -> None:
    """Raise `BundleError` with the first problem of *findings*, and a word on the others."""
    problems = [finding for finding in findings if not finding.ok]
    if not problems:
        return
    first = problems[0]
    place = shlex.quote(str(bundle.path))
    more = f" ({len(problems) - 1} more: `nemotron verify {place}`)" if len(problems) > 1 else ""
    raise BundleError(f"the bundle {bundle.path} {first.detail}", f"{first.remedy}{more}")


def _state(bundle: Bundle) -> Finding:
    manifest = bundle.manifest
    if manifest.state == "complete":
        return Finding("state", "is complete")
    return Finding(
        "state",
        f"is unfinished: {manifest.next_stage or 'a stage'} was not done where it was built",
        f"finish it with `nemotron build-engine --resume {shlex.quote(str(bundle.path))}` on {_home(manifest)}",
    )


def _profile(bundle: Bundle) -> Finding:
    try:
        return Finding("profile", f"speaks as {bundle.profile.name}")
    except ProfileError as error:
        return Finding("profile", f"is for a model this nemotron does not know: {error}", "install a newer nemotron")


def _cpu(_: Manifest, runtime: Runtime) -> Iterator[Finding]:
    if runtime.llama_cpp:
        yield Finding("xllamacpp", f"runs in llama.cpp, of which xllamacpp {runtime.llama_cpp} is here")
    else:
        yield Finding(
            "xllamacpp",
            "runs in llama.cpp, and xllamacpp is not installed here",
            how_to_install("cpu"),
        )


def _tensorrt(manifest: Manifest, runtime: Runtime) -> Iterator[Finding]:
    yield _same_sm(manifest, runtime)
    built, here = manifest.tool_versions.get("tensorrt_llm"), runtime.tensorrt_llm
    yield _same_version("tensorrt_llm", "TensorRT-LLM", built, here, _ways_out(manifest, built, here))
    tensorrt = manifest.tool_versions.get("tensorrt")
    # Without TensorRT's Python package its version cannot be told; TensorRT-LLM's then stands for it.
    if tensorrt and runtime.tensorrt:
        ways_out = _ways_out(manifest, built, here)
        yield _same_version("tensorrt", "TensorRT", _numbers(tensorrt), _numbers(runtime.tensorrt), ways_out)


def _pytorch(manifest: Manifest, runtime: Runtime) -> Iterator[Finding]:
    least = max(_PYTORCH_SM, _ARITHMETIC_SM.get(manifest.precision, 0))
    what = f"needs a GPU of SM {least} or later for {manifest.precision} weights"
    if any(sm >= least for sm in runtime.sms):
        yield Finding("gpu", f"{what}, and this machine has {runtime.gpu_titles}")
    else:
        yield Finding("gpu", f"{what}, and {_seen(runtime)}", _elsewhere(manifest, runtime))
    here = runtime.tensorrt_llm
    wanted = f"runs in TensorRT-LLM {_FIRST_LLM_API} or later"
    key, first = release_key(here or ""), release_key(_FIRST_LLM_API)
    if key and first and key >= first:
        yield Finding("tensorrt_llm", f"{wanted}, and {here} is here")
    else:
        yield Finding(
            "tensorrt_llm",
            f"{wanted}, and {here or 'none'} is here",
            f"serve it in a container with TensorRT-LLM {_FIRST_LLM_API} or later",
        )


def _edge(manifest: Manifest, runtime: Runtime) -> Iterator[Finding]:
    yield _same_sm(manifest, runtime)
    built = manifest.tool_versions.get("tensorrt-edgellm")
    # Its own numpy is not the one that Triton's Python stub needs, and running an engine needs none.
    install = (
        f"pip install --no-deps tensorrt-edgellm=={built}, or build it again here: " if built else "build it again: "
    )
    remedy = f"{install}{_rebuild(manifest, keep=True)}"
    yield _same_version("edge_llm", "TensorRT Edge-LLM", built, runtime.edge_llm, remedy)


def _same_sm(manifest: Manifest, runtime: Runtime) -> Finding:
    if manifest.sm is None:
        return Finding("gpu", "does not say for which GPU it was compiled", f"build it again: {_rebuild(manifest)}")
    if manifest.sm in runtime.sms:
        return Finding("gpu", f"was built for SM {manifest.sm}, and this machine has {runtime.gpu_titles}")
    return Finding(
        "gpu",
        f"was built for {manifest.gpu} (SM {manifest.sm}), and {_seen(runtime)}",
        _elsewhere(manifest, runtime),
    )


def _same_version(name: str, title: str, built: str | None, here: str | None, remedy: str) -> Finding:
    if built is None:
        return Finding(name, f"does not say with which {title} it was built", remedy)
    if here is None:
        return Finding(name, f"was built with {title} {built}, which is not installed here", remedy)
    if same_release(built, here):
        return Finding(name, f"was built with {title} {built}, as it is here")
    ended = ", which has no compiled engines any more" if name == "tensorrt_llm" and _without_engines(here) else ""
    return Finding(name, f"was built with {title} {built}, and here is {here}{ended}", remedy)


def _ways_out(manifest: Manifest, built: str | None, here: str | None) -> str:
    """Another place for the engine, or another engine for this place."""
    container = manifest.container or (f"a container with TensorRT-LLM {built}" if built else "the container it is of")
    rebuild = _rebuild(manifest, keep=True, kind="pytorch" if here and _without_engines(here) else None)
    return f"serve it in {container}, or build it again here: {rebuild}"


def _without_engines(version: str) -> bool:
    key = release_key(version)
    return key is not None and key >= FIRST_WITHOUT_ENGINES


def _elsewhere(manifest: Manifest, runtime: Runtime) -> str:
    if runtime.nvml.gpus:
        return f"move it to {_home(manifest)}, or build it for this GPU: {_rebuild(manifest)}"
    see = f"{runtime.nvml.remedy}; or " if runtime.nvml.remedy else ""
    return f"{see}move it to {_home(manifest)}"


def _seen(runtime: Runtime) -> str:
    return runtime.nvml.problem or f"this machine has {runtime.gpu_titles}"


def _home(manifest: Manifest) -> str:
    """The machine it is for."""
    return f"a machine with {manifest.gpu}{f' (SM {manifest.sm})' if manifest.sm else ''}"


def _rebuild(manifest: Manifest, *, keep: bool = False, kind: str | None = None) -> str:
    """The command that makes a bundle like it for the local GPU; its precision is *kept* where the GPU is the same."""
    precision = ["--precision", manifest.precision] if keep else []
    wanted = ["--engine-kind", kind] if kind else []
    limits = ["--max-seq-len", str(manifest.max_seq_len), "--max-batch-size", str(manifest.max_batch_size)]
    options = ["--gpu", "auto", *precision, *wanted, "--model", manifest.profile, *limits, "--output", "OTHER"]
    return f"`nemotron build-engine CHECKPOINT {shlex.join(options)}`"


def _numbers(version: str) -> str:
    """*version* without what repackaging adds: 10.14.1.48.post1 is TensorRT 10.14.1.48."""
    return version.partition(".post")[0]
