"""What planning asks of an engine kind. Knows none by name: `nemotron_build.kinds` has them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from nemotron_build.architecture import Dimensions
from nemotron_build.precisions import KvPrecision, Precision

# TensorRT-LLM's default: more tokens in one step make prefill no faster, only its buffers larger.
MAX_STEP_TOKENS = 8192


class Kind(ABC):
    """One way to make and run an engine. What its makers say of it is in `rules.yaml` and `precisions.yaml`, by `name`.

    An engine that is `compiled` runs on GPUs of one SM only. `sixteen_bit` is the type that it computes in unless the
    weights are fp16, `kv_fraction` the KV cache's share of the memory that the loaded engine leaves free, None where it
    takes no such setting.
    """

    name: ClassVar[str]
    compiled: ClassVar[bool] = True
    sixteen_bit: ClassVar[Literal["bf16", "fp16"]] = "bf16"
    kv_fraction: ClassVar[float | None] = None

    @abstractmethod
    def chunks_prompts(self, architecture: Dimensions, precision: Precision, kv: KvPrecision, /) -> bool:
        """Whether the engine reads a long prompt in several steps."""

    def computes_in(self, precision: Precision) -> Literal["bf16", "fp16"]:
        """The type of what *precision* does not quantise, and of a 16-bit KV cache."""
        return precision.dtype if precision.dtype == "fp16" else self.sixteen_bit

    def step_tokens(self, concurrency: int, seq_len: int) -> int:
        """Most prompt tokens that one step computes for *concurrency* sequences of *seq_len* tokens."""
        return min(MAX_STEP_TOKENS, concurrency * seq_len)

    def __str__(self) -> str:
        return self.name
