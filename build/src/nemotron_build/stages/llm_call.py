"""The call of TensorRT-LLM's LLM API that serves a plan."""

from __future__ import annotations

from nemotron_build.commands.llm_api import LlmCall
from nemotron_build.stages.plan import BuildPlan

# What TensorRT-LLM takes of the memory that is free once the engine is loaded; the rest is for fragmentation.
FREE_MEMORY_FRACTION = 0.9


def llm_call(plan: BuildPlan) -> LlmCall:
    """The call for *plan*; paths are the bundle's."""
    decision, architecture = plan.decision, plan.checkpoint.architecture
    return LlmCall(
        model="engine",
        tokenizer="tokenizer",
        limits=plan.memory.settings,
        free_gpu_memory_fraction=FREE_MEMORY_FRACTION,
        chunks_prompts=decision.kind.chunks_prompts(architecture, decision.precision, decision.kv),
        hybrid=architecture.state_bytes_per_sequence() > 0,
        kv=decision.kv,
        dtype="auto" if decision.precision.quantized else decision.precision.torch_dtype,
    )
