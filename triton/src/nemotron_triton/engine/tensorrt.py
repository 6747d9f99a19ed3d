"""The `tensorrt` engine: an engine directory of `trtllm-build`, in TensorRT-LLM's C++ runtime. Not run on hardware.

Its decoder knows every field of `Sampling`. It runs in this process, because its executor is C++, and spawning through
MPI is reported to fail in the container 26.07.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

from nemotron_triton.bundle import MAX_MANIFEST_BYTES, Bundle, Manifest
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.engine.llm_api import LlmApiEngine
from nemotron_triton.errors import BundleError
from nemotron_triton.findings import Finding, rebuild, same_sm, same_version
from nemotron_triton.releases import FIRST_WITHOUT_ENGINES, release_key, same_release
from nemotron_triton.runtime import Runtime

_SEED_BITS = 64


class TensorrtEngine(LlmApiEngine):
    """TensorRT-LLM on one bundle of kind `tensorrt`."""

    _module = "tensorrt_llm._tensorrt_engine"
    _single_process = True

    def _lacking(self) -> dict[str, str]:
        if (self.manifest.llm_args or {}).get("gather_generation_logits"):
            return {}
        return {"logprobs": "this engine was built without generation logits, which they are computed from"}

    def _seed(self, sampling: Sampling) -> int | None:
        # Without one, every request would draw the same tokens.
        return secrets.randbits(_SEED_BITS) if sampling.seed is None else sampling.seed % (1 << _SEED_BITS)

    @classmethod
    def machine_findings(cls, manifest: Manifest, runtime: Runtime) -> Iterator[Finding]:
        yield same_sm(manifest, runtime)
        built, here = manifest.tool_versions.get("tensorrt_llm"), runtime.tensorrt_llm
        ended = here is not None and _without_engines(here)
        remedy = _ways_out(manifest, built, kind="pytorch" if ended else None)
        difference = ", which has no compiled engines any more" if ended else ""
        yield same_version("tensorrt_llm", "TensorRT-LLM", built, here, remedy=remedy, difference=difference)
        tensorrt = manifest.tool_versions.get("tensorrt")
        # Without TensorRT's Python package its version cannot be told; TensorRT-LLM's then stands for it.
        if tensorrt and runtime.tensorrt:
            yield same_version("tensorrt", "TensorRT", _numbers(tensorrt), _numbers(runtime.tensorrt), remedy=remedy)

    @classmethod
    def bundle_findings(cls, bundle: Bundle) -> Iterator[Finding]:
        """Whether the config.json that `trtllm-build` wrote names the TensorRT-LLM that the manifest names."""
        manifest = bundle.manifest
        if manifest.state != "complete":
            return
        name, again = f"{manifest.engine_file}/config.json", "build or copy the bundle again"
        try:
            version = _config_version(bundle, name)
        except BundleError:
            yield Finding("engine", f"has no {name}, which says what made the engine", again)
            return
        except (OSError, ValueError, RecursionError) as error:
            yield Finding("engine", f"has an {name} that cannot be read: {error}", again)
            return
        recorded = manifest.tool_versions.get("tensorrt_llm")
        if version is not None and recorded is not None and same_release(version, recorded):
            yield Finding("engine", f"has an engine of TensorRT-LLM {version}, as its manifest says")
            return
        says = "names no version" if version is None else f"says TensorRT-LLM {version}"
        yield Finding("engine", f"has an {name} that {says}, and a manifest that says {recorded or 'nothing'}", again)


def _config_version(bundle: Bundle, name: str) -> str | None:
    """The TensorRT-LLM that the file *name* names."""
    file = bundle.file(name)
    if file.stat().st_size > MAX_MANIFEST_BYTES:
        raise ValueError(f"it has more than {MAX_MANIFEST_BYTES >> 20} MiB")
    config = json.loads(file.read_text(encoding="utf-8"))
    version = config.get("version") if isinstance(config, dict) else None
    return version if isinstance(version, str) else None


def _ways_out(manifest: Manifest, built: str | None, kind: str | None) -> str:
    """Another place for the engine, or another engine, perhaps of another *kind*, for this place."""
    container = manifest.container or (f"a container with TensorRT-LLM {built}" if built else "the container it is of")
    return f"serve it in {container}, or build it again here: {rebuild(manifest, keep=True, kind=kind)}"


def _without_engines(version: str) -> bool:
    key = release_key(version)
    return key is not None and key >= FIRST_WITHOUT_ENGINES


def _numbers(version: str) -> str:
    """*version* without what repackaging adds: 10.14.1.48.post1 is TensorRT 10.14.1.48."""
    return version.partition(".post")[0]
