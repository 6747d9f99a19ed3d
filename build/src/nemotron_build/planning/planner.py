"""Whether a model fits a GPU, with how long a context and how many requests, and the settings that follow. Pure.

Weights, KV cache and recurrent state are exact for their formats. Activations and the runtime's own memory are
estimates that were never measured on the hardware, and say so in the plan.
"""

from __future__ import annotations

import bisect
import reprlib
from collections.abc import Callable
from dataclasses import dataclass

from nemotron_build.architecture import Dimensions
from nemotron_build.commands.limits import Limits
from nemotron_build.commands.trtllm_build import TOKENS_PER_BLOCK
from nemotron_build.errors import SettingError
from nemotron_build.planning.gpus import Gpu
from nemotron_build.planning.kind import MAX_STEP_TOKENS
from nemotron_build.planning.roofline import Roofline, roofline
from nemotron_build.planning.rules import Decision
from nemotron_build.planning.weights import WeightBytes, weight_bytes

DEFAULT_MAX_SEQ_LEN = 8192
DEFAULT_CONCURRENCY = 8
_MOST_REQUESTS = 1_000_000
_RUNTIME_BYTES = 1 << 30
_DRIVER_SHARE = 0.02
_ACTIVATION_BYTES = 2
_LOGIT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Where the memory goes, bytes.

    `activations` = tokens of a step x `activation_values_per_token` x 2, and the kind's `logit_rows` of FP32 logits for
    each sequence (estimate). `runtime` = 1 GiB for the CUDA context and libraries, and on a GPU 2 percent for the
    driver (estimate). `kv_budget` is what is left for keys and values beside the recurrent `state` of all sequences,
    and `kv_needed` what they take at the asked length, in whole blocks.
    """

    total: int
    weights: WeightBytes
    activations: int
    runtime: int
    state: int
    kv_budget: int
    kv_needed: int

    estimates: tuple[str, ...] = ("activations", "runtime")


@dataclass(frozen=True, kw_only=True)
class Settings(Limits):
    """The engine's limits that follow; the KV cache's fraction is None where an engine takes no such setting."""

    kv_cache_free_gpu_mem_fraction: float | None


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a GPU can do with a model.

    `max_seq_len` is the longest context at `concurrency` sequences, in whole KV blocks and at most the model's;
    `max_concurrency` the most sequences of `asked_seq_len` tokens; both 0 when nothing fits. `roofline` is None where
    the bandwidth is not known, and `roofline_reason` says why.
    """

    gpu: Gpu
    decision: Decision
    asked_seq_len: int
    concurrency: int
    parameters: int
    kv_bytes_per_token: int
    state_bytes_per_sequence: int
    memory: Memory
    max_seq_len: int
    max_concurrency: int
    fits: bool
    reason: str
    settings: Settings
    roofline: Roofline | None
    roofline_reason: str | None

    @property
    def weights_bytes(self) -> int:
        """All weights, scales included."""
        return self.memory.weights.total

    @property
    def tokens_per_second_bound(self) -> float | None:
        """Most tokens/s of one sequence with an empty context; None where the bandwidth is not known."""
        return self.roofline.batch_1_empty.tokens_per_second if self.roofline else None


def plan(
    gpu: Gpu,
    architecture: Dimensions,
    decision: Decision,
    *,
    max_seq_len: int | None = None,
    concurrency: int = DEFAULT_CONCURRENCY,
) -> MemoryPlan:
    """The plan for *concurrency* sequences of *max_seq_len* tokens, prompt and answer together.

    Without a length it is 8192, or the model's own limit where that is less.
    `BuildError` for numbers that no machine could serve; that it does not fit is a plan, not an error.
    """
    if max_seq_len is None:
        max_seq_len = min(DEFAULT_MAX_SEQ_LEN, architecture.max_position_embeddings)
    if concurrency < 1:
        raise SettingError(f"--concurrency is {concurrency}; at least 1 request must run")
    if concurrency > _MOST_REQUESTS:
        raise SettingError(f"--concurrency is {reprlib.repr(concurrency)}; at most {_MOST_REQUESTS} can be planned for")
    if max_seq_len < 16:
        raise SettingError(f"--max-seq-len is {max_seq_len}; no prompt fits, give at least 16")
    if max_seq_len > architecture.max_position_embeddings:
        raise SettingError(
            f"--max-seq-len is {max_seq_len}; the model goes up to {architecture.max_position_embeddings} tokens"
        )
    demand = _Demand(gpu, architecture, decision)
    longest = demand.blocks(architecture.max_position_embeddings)
    blocks = _most(longest, lambda blocks: demand.fits(concurrency, blocks * TOKENS_PER_BLOCK))
    most = _most(MAX_STEP_TOKENS, lambda concurrency: demand.fits(concurrency, max_seq_len))
    memory = demand.memory(concurrency, max_seq_len)
    step_tokens = demand.step_tokens(concurrency, max_seq_len)
    max_input_len = max_seq_len - 1
    if not decision.kind.chunks_prompts(architecture, decision.precision, decision.kv):
        max_input_len = min(max_input_len, step_tokens)
    bounds = roofline(gpu, architecture, decision, concurrency=concurrency, context_tokens=max_seq_len)
    return MemoryPlan(
        gpu=gpu,
        decision=decision,
        asked_seq_len=max_seq_len,
        concurrency=concurrency,
        parameters=architecture.parameters,
        kv_bytes_per_token=demand.kv_bytes_per_token,
        state_bytes_per_sequence=demand.state_bytes,
        memory=memory,
        max_seq_len=min(blocks * TOKENS_PER_BLOCK, architecture.max_position_embeddings),
        max_concurrency=most,
        fits=concurrency <= most,
        reason=_reason(memory, f"{concurrency} x {max_seq_len} tokens", fits=concurrency <= most),
        settings=Settings(
            max_batch_size=concurrency,
            max_input_len=max_input_len,
            max_num_tokens=step_tokens,
            max_seq_len=max_seq_len,
            kv_cache_free_gpu_mem_fraction=decision.kind.kv_fraction,
        ),
        roofline=bounds,
        roofline_reason=None if bounds else f"bandwidth {gpu.sources['bandwidth']}",
    )


class _Demand:
    """What some sequences of some length ask of the memory; more of either never asks less."""

    def __init__(self, gpu: Gpu, architecture: Dimensions, decision: Decision) -> None:
        self._gpu, self._architecture, self._kind = gpu, architecture, decision.kind
        self._weights = weight_bytes(architecture, decision.precision)
        self._runtime = _RUNTIME_BYTES + (0 if gpu.sm is None else int(gpu.memory_bytes * _DRIVER_SHARE))
        self._fraction = decision.kind.kv_fraction or 1.0
        self.kv_bytes_per_token = architecture.kv_values_per_token * decision.kv.bits // 8
        self.state_bytes = architecture.state_bytes_per_sequence()

    def memory(self, concurrency: int, seq_len: int) -> Memory:
        seq_len = self.blocks(seq_len) * TOKENS_PER_BLOCK
        tokens = self.step_tokens(concurrency, seq_len)
        activations = (
            tokens * self._architecture.activation_values_per_token * _ACTIVATION_BYTES
            + concurrency * self._kind.logit_rows * self._architecture.vocab_size * _LOGIT_BYTES
        )
        state = concurrency * self.state_bytes
        free = self._gpu.memory_bytes - self._weights.total - activations - self._runtime
        return Memory(
            total=self._gpu.memory_bytes,
            weights=self._weights,
            activations=activations,
            runtime=self._runtime,
            state=state,
            kv_budget=max(0, int(free * self._fraction) - state),
            kv_needed=concurrency * seq_len * self.kv_bytes_per_token,
        )

    def fits(self, concurrency: int, seq_len: int) -> bool:
        memory = self.memory(concurrency, seq_len)
        return memory.kv_needed <= memory.kv_budget

    def step_tokens(self, concurrency: int, seq_len: int) -> int:
        """Tokens one step computes at most: of prompts, or one of each answer."""
        return max(concurrency, self._kind.step_tokens(concurrency, seq_len))

    @staticmethod
    def blocks(tokens: int) -> int:
        return -(-tokens // TOKENS_PER_BLOCK)


def _most(limit: int, possible: Callable[[int], bool]) -> int:
    """The largest of 1 to *limit* that is *possible*, 0 when none is; below a possible one all are."""
    return bisect.bisect_left(range(1, limit + 1), True, key=lambda count: not possible(count))


def _reason(memory: Memory, asked: str, *, fits: bool) -> str:
    if fits:
        spare = memory.kv_budget - memory.kv_needed
        return f"{asked} take {gib(memory.kv_needed)} of KV cache; {gib(spare)} of {gib(memory.kv_budget)} stay free"
    fixed = memory.weights.total + memory.activations + memory.runtime + memory.state
    return (
        f"{asked} need {gib(memory.kv_needed)} of KV cache; of {gib(memory.total)}, weights, activations, state and "
        f"runtime take {gib(fixed)}, which leaves {gib(memory.kv_budget)}"
    )


def gib(count: int) -> str:
    """*count* bytes for people."""
    return f"{count / 2**30:.1f} GiB"
