"""The `pytorch` engine: a Hugging Face checkpoint, in TensorRT-LLM's PyTorch backend. Not run on hardware.

It samples in TensorRT-LLM 1.2.1's `TorchSampler` (`_torch/pyexecutor/sampler.py`), which ignores some fields of
`Sampling` and says nothing (of the penalties, pull request 16485 says so): those are refused here. It runs in a worker
that TensorRT-LLM starts through MPI, because its executor is Python and would share our interpreter.
"""

from __future__ import annotations

from collections.abc import Iterator

from packaging.version import Version

from nemotron_triton.bundle import Manifest
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.engine.llm_api import LlmApiEngine
from nemotron_triton.findings import Finding, elsewhere, gpus_seen
from nemotron_triton.releases import release_key
from nemotron_triton.runtime import Runtime

# The first release whose LLM API takes the arguments that bundles carry.
_FIRST_RELEASE = Version("1.2.1")
_IGNORED = (
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "no_repeat_ngram_size",
    "bad_ids",
)


class PytorchEngine(LlmApiEngine):
    """TensorRT-LLM on one bundle of kind `pytorch`."""

    _module = "tensorrt_llm"
    _single_process = False

    def _lacking(self) -> dict[str, str]:
        return {
            **dict.fromkeys(_IGNORED, "the PyTorch sampler of TensorRT-LLM 1.2.1 ignores it"),
            "seed": "the PyTorch sampler of TensorRT-LLM 1.2.1 draws for all requests from one generator",
        }

    def _seed(self, _: Sampling) -> int | None:
        return None

    @classmethod
    def machine_findings(cls, manifest: Manifest, runtime: Runtime) -> Iterator[Finding]:
        least = manifest.requires_sm
        if least is None:
            # Manifests of schema 2 do not have it; the backend then finds out by itself.
            need = "needs a GPU (its manifest does not say from which SM on)"
        else:
            need = f"needs a GPU of SM {least} or later for {manifest.precision} weights"
        if any(sm >= (least or 0) for sm in runtime.sms):
            yield Finding("gpu", f"{need}, and this machine has {runtime.gpu_titles}")
        else:
            yield Finding("gpu", f"{need}, and {gpus_seen(runtime)}", elsewhere(manifest, runtime))
        here = runtime.tensorrt_llm
        key = release_key(here or "")
        need = f"runs in TensorRT-LLM {_FIRST_RELEASE} or later"
        if key and key >= _FIRST_RELEASE:
            yield Finding("tensorrt_llm", f"{need}, and {here} is here")
        else:
            yield Finding(
                "tensorrt_llm",
                f"{need}, and {here or 'none'} is here",
                f"serve it in a container with TensorRT-LLM {_FIRST_RELEASE} or later",
            )
