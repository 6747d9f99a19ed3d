"""The `config.json` of a compiled TensorRT-LLM engine against the plan it was compiled from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemotron_build.architecture import Dimensions
from nemotron_build.checkpoint import read_json
from nemotron_build.commands.limits import Limits
from nemotron_build.errors import CheckpointError, VerificationError
from nemotron_build.precisions import KvPrecision, Precision
from nemotron_build.verification.problems import differences, refuse
from nemotron_build.verification.trtllm_layouts import trtllm_dimensions


def check_trtllm_engine(
    folder: Path,
    architecture: Dimensions,
    *,
    precision: Precision,
    kv: KvPrecision,
    limits: Limits,
    version: str | None,
) -> list[str]:
    """What was found right, a line each; `VerificationError` lists what is wrong. *version* is TensorRT-LLM's."""
    try:
        config = read_json(folder / "config.json")
    except CheckpointError as error:
        raise VerificationError(f"the engine has no readable config.json: {error}") from error
    model, build = _object(config, "pretrained_config"), _object(config, "build_config")
    quantization = _object(model, "quantization")
    # The longest prompt has no effect on the engine.
    compiled = {name: getattr(limits, name) for name in ("max_batch_size", "max_seq_len", "max_num_tokens")}
    algorithms = {"quant_algo": precision.quant_algo, "kv_cache_quant_algo": kv.quant_algo}
    problems = [
        *differences(model, trtllm_dimensions(architecture) | {"vocab_size": architecture.vocab_size}),
        *differences(quantization, algorithms),
        *differences(build, compiled | {"kv_cache_type": "PAGED"}),
    ]
    compiler = str(config.get("version"))
    if version not in (None, compiler):
        problems.append(f"TensorRT-LLM {compiler} compiled it instead of {version}")
    if not (folder / "rank0.engine").is_file():
        problems.append("rank0.engine is missing")
    refuse(problems, f"the engine in {folder} is not what was planned")
    return [
        f"the engine of TensorRT-LLM {compiler} has the source's dimensions (head size {architecture.head_dim})",
        f"its limits are the plan's: {limits.max_batch_size} sequences of {limits.max_seq_len} tokens, "
        f"{limits.max_num_tokens} in a step",
    ]


def _object(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def check_edge_engine(folder: Path) -> list[str]:
    """Whether an engine folder of TensorRT Edge-LLM is whole; `VerificationError` names what is missing."""
    missing = [name for name in ("llm.engine", "config.json") if not (folder / name).is_file()]
    if missing:
        raise VerificationError(f"the engine in {folder} lacks {' and '.join(missing)}")
    return ["llm.engine and its config.json are there"]
