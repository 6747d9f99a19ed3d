"""The `tensorrt` engine: an engine directory of `trtllm-build` in TensorRT-LLM's C++ runtime. Not run on hardware.

Its decoder supports every field of `Sampling`; log probabilities need an engine that keeps its logits, which those of
release 0.1 do not. It runs in this process, because its executor is C++, and starting a worker through MPI is reported
to fail in the container 26.07.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from nemotron_triton.bundle import MAX_MANIFEST_BYTES, Bundle, Manifest
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.engine.llm_api import LlmApiEngine
from nemotron_triton.engine.llm_sampling import sampling_params
from nemotron_triton.errors import BundleError, RequestError
from nemotron_triton.findings import Finding, rebuild, same_sm, same_version
from nemotron_triton.releases import FIRST_WITHOUT_ENGINES, release_key, same_release
from nemotron_triton.runtime import Runtime

_SEED_BITS = 64
# Of main memory, for one request.
_MOST_LOGITS_BYTES = 2 << 30


class TensorrtEngine(LlmApiEngine):
    """TensorRT-LLM on one bundle of kind `tensorrt`."""

    _module = "tensorrt_llm._tensorrt_engine"
    _single_process = True

    def __init__(self, bundle: Bundle, codec: TokenCodec) -> None:
        super().__init__(bundle, codec)
        self.kv_tokens_per_block = _tokens_per_block(bundle)

    @classmethod
    def unsupported(cls, llm_args: Mapping[str, Any]) -> Mapping[str, str]:
        fields = dict(super().unsupported(llm_args))
        if not llm_args.get("gather_generation_logits"):
            fields["logprobs"] = "this engine was built without the logits that they are computed from; build it again"
        return fields

    def _abortable(self, sampling: Sampling) -> bool:
        # The executor crashes when a stream with log probabilities is aborted (NVIDIA/TensorRT-LLM issue 10810, seen
        # with 1.1.0 and 1.2.0rc7, closed without a fix).
        return sampling.logprobs is None

    def _params(self, sampling: Sampling, prompt_tokens: int) -> Any:
        if sampling.logprobs is not None:
            self._check_logits(sampling.max_tokens)
        # Without a seed, every request would sample the same tokens.
        seed = secrets.randbits(_SEED_BITS) if sampling.seed is None else sampling.seed % (1 << _SEED_BITS)
        # The metrics have the blocks that were cached.
        return sampling_params(
            self._api, sampling, self.manifest, prompt_tokens=prompt_tokens, seed=seed, perf_metrics=True
        )

    def _check_logits(self, max_tokens: int) -> None:
        # For a request with log probabilities TensorRT-LLM reserves a row of FP32 logits for each token that it may
        # generate, in page-locked main memory (`allocGenerationLogitsHost` in its `batch_manager/llmRequest.h`).
        most: int = _MOST_LOGITS_BYTES // (4 * self.manifest.plan["architecture"]["vocab_size"])
        if max_tokens > most:
            raise RequestError(
                f"log probabilities of up to {max_tokens} tokens would reserve more than "
                f"{_MOST_LOGITS_BYTES >> 30} GiB in TensorRT-LLM; give a max_tokens of at most {most}"
            )

    def _cached_tokens(self, answer: Any) -> int | None:
        # The C++ executor counts blocks, and reports them with the last response; a block may be reused in part.
        metrics = getattr(answer.outputs[0], "request_perf_metrics", None)
        if metrics is None or self.kv_tokens_per_block is None:
            return None
        reused: int = metrics.kv_cache_metrics.num_reused_blocks
        return min(len(answer.prompt_token_ids), reused * self.kv_tokens_per_block)

    @classmethod
    def machine_findings(cls, manifest: Manifest, runtime: Runtime) -> Iterator[Finding]:
        yield same_sm(manifest, runtime)
        built, here = manifest.tool_versions.get("tensorrt_llm"), runtime.tensorrt_llm
        release = release_key(here or "")
        ended = release is not None and release >= FIRST_WITHOUT_ENGINES
        with_built = f"a container with TensorRT-LLM {built}" if built else "the container it is of"
        again = rebuild(manifest, keep=True, kind="pytorch" if ended else None)
        remedy = f"serve it in {manifest.container or with_built}, or build it again here: {again}"
        difference = ", which has no compiled engines any more" if ended else ""
        yield same_version("tensorrt_llm", "TensorRT-LLM", built, here, remedy=remedy, difference=difference)
        tensorrt = manifest.tool_versions.get("tensorrt")
        # Without TensorRT's Python package its version is unknown, and TensorRT-LLM's has to do.
        if tensorrt and runtime.tensorrt:
            yield same_version("tensorrt", "TensorRT", _numbers(tensorrt), _numbers(runtime.tensorrt), remedy=remedy)

    @classmethod
    def bundle_findings(cls, bundle: Bundle) -> Iterator[Finding]:
        """Whether the config.json that `trtllm-build` wrote names the same TensorRT-LLM as the manifest."""
        if bundle.manifest.state == "complete":
            yield _engine_finding(bundle)


def _engine_finding(bundle: Bundle) -> Finding:
    name, again = f"{bundle.manifest.engine_file}/config.json", "build or copy the bundle again"
    recorded = bundle.manifest.tool_versions.get("tensorrt_llm")
    try:
        version = _config_version(bundle, name)
    except BundleError:
        return Finding("engine", f"has no {name}, which says what made the engine", again)
    except (OSError, ValueError, RecursionError) as error:
        return Finding("engine", f"has an {name} that cannot be read: {error}", again)
    if version and recorded and same_release(version, recorded):
        return Finding("engine", f"has an engine of TensorRT-LLM {version}, as its manifest says")
    says = "names no version" if version is None else f"says TensorRT-LLM {version}"
    return Finding("engine", f"has an {name} that {says}, and a manifest that says {recorded or 'nothing'}", again)


def _config_version(bundle: Bundle, name: str) -> str | None:
    version = _config(bundle, name).get("version")
    return version if isinstance(version, str) else None


def _tokens_per_block(bundle: Bundle) -> int | None:
    """What `trtllm-build --tokens_per_block` was given; None where the engine's config does not say it."""
    value: Any
    try:
        value = _config(bundle, f"{bundle.manifest.engine_file}/config.json")
        for key in ("build_config", "plugin_config", "tokens_per_block"):
            value = value[key]
    except (BundleError, OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    return value if isinstance(value, int) and value > 0 else None


def _config(bundle: Bundle, name: str) -> dict[str, Any]:
    file = bundle.file(name)
    if file.stat().st_size > MAX_MANIFEST_BYTES:
        raise ValueError(f"it has more than {MAX_MANIFEST_BYTES >> 20} MiB")
    config = json.loads(file.read_text(encoding="utf-8"))
    return config if isinstance(config, dict) else {}


def _numbers(version: str) -> str:
    """*version* without the suffix of a repackaged wheel: 10.14.1.48.post1 is TensorRT 10.14.1.48."""
    return version.partition(".post")[0]
