"""The `pytorch` engine: a Hugging Face checkpoint in TensorRT-LLM's PyTorch backend. Not run on hardware.

TensorRT-LLM 1.2.1's `TorchSampler` (`tensorrt_llm/_torch/pyexecutor/sampler.py`) silently ignores some fields of
`Sampling` (for the penalties see NVIDIA/TensorRT-LLM pull request 16485): requests with them are refused. The executor
is Python and would share our interpreter, so it runs in a worker process that TensorRT-LLM starts through MPI.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from packaging.version import Version

from nemotron_triton.bundle import Bundle, Manifest
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.llm_api import LlmApiEngine
from nemotron_triton.findings import Finding, elsewhere, gpus_seen
from nemotron_triton.releases import release_key
from nemotron_triton.runtime import Runtime

# The first release whose LLM API takes the arguments that bundles carry.
_FIRST_RELEASE = Version("1.2.1")
_IGNORED = ("min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "no_repeat_ngram_size", "bad_ids")


class PytorchEngine(LlmApiEngine):
    """TensorRT-LLM on one bundle of kind `pytorch`."""

    _module = "tensorrt_llm"
    _single_process = False

    def __init__(self, bundle: Bundle, codec: TokenCodec) -> None:
        super().__init__(bundle, codec)
        arguments = self.manifest.llm_args or {}
        self.kv_tokens_per_block = arguments.get("kv_cache_config", {}).get("tokens_per_block")

    @classmethod
    def unsupported(cls, llm_args: Mapping[str, Any]) -> Mapping[str, str]:
        return {
            **super().unsupported(llm_args),
            **dict.fromkeys(_IGNORED, "the PyTorch sampler of TensorRT-LLM 1.2.1 ignores it"),
            "seed": "the PyTorch sampler of TensorRT-LLM 1.2.1 has one generator for all: a seed would repeat nothing",
        }

    def _cached_tokens(self, answer: Any) -> int | None:
        # `tensorrt_llm/executor/result.py` of NVIDIA/TensorRT-LLM at a678b91a, not of the release: it may lack it.
        cached: int | None = getattr(answer, "cached_tokens", None)
        return cached

    @classmethod
    def machine_findings(cls, manifest: Manifest, runtime: Runtime) -> Iterator[Finding]:
        least = manifest.requires_sm
        if least is None:
            # Schema 2 does not have it; the backend then checks it when it loads.
            need = "needs a GPU (its manifest does not say from which SM on)"
        else:
            need = f"needs a GPU of SM {least} or later for {manifest.precision} weights"
        loadable = any(sm >= (least or 0) for sm in runtime.sms)
        yield Finding("gpu", f"{need}, and {gpus_seen(runtime)}", None if loadable else elsewhere(manifest, runtime))
        key = release_key(runtime.tensorrt_llm or "")
        releases = f"TensorRT-LLM {_FIRST_RELEASE} or later"
        yield Finding(
            "tensorrt_llm",
            f"runs in {releases}, and {runtime.tensorrt_llm or 'none'} is here",
            None if key and key >= _FIRST_RELEASE else f"serve it in a container with {releases}",
        )
