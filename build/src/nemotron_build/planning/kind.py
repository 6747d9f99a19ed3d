"""What planning asks of an engine kind. Knows none by name: `nemotron_build.kinds` has them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from nemotron_build.architecture import Dimensions
from nemotron_build.precisions import KvPrecision, Precision

# TensorRT-LLM's default: more tokens in one step make prefill no faster, only its buffers larger.
MAX_STEP_TOKENS = 8192


@dataclass(frozen=True)
class Finding:
    """What one rule says of a combination; `unproven` when a maker's table does not plainly list it."""

    level: Literal["refused", "warning", "note"]
    text: str
    unproven: bool = False


class Kind(ABC):
    """One way to make and run an engine. Which precisions it takes on which GPU is in `precisions.yaml`, by `name`.

    `title` is what runs it, `sms` the GPUs it is made for (None is the CPU), and `elsewhere` what is said of others.
    `models` has a word on every model type. The tools that need a word of their own for a precision are named by that
    word's attribute of the row: `tools` for every precision, `quantizers` for weights and `kv_quantizers` for keys and
    values that are not 16 bit.

    An engine that is `compiled` runs on GPUs of one SM only. `sixteen_bit` is the type that it computes in unless the
    weights are fp16, `kv_fraction` the KV cache's share of the memory that the loaded engine leaves free, None where it
    takes no such setting. `logit_rows` is how many rows of FP32 logits the engine keeps of each sequence.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    sms: ClassVar[tuple[int | None, ...]]
    elsewhere: ClassVar[str]
    models: ClassVar[Mapping[str, Finding | None]]
    tools: ClassVar[Mapping[str, str]] = {}
    quantizers: ClassVar[Mapping[str, str]] = {}
    kv_quantizers: ClassVar[Mapping[str, str]] = {}
    compiled: ClassVar[bool] = True
    sixteen_bit: ClassVar[Literal["bf16", "fp16"]] = "bf16"
    kv_fraction: ClassVar[float | None] = None
    logit_rows: ClassVar[int] = 1

    @property
    def model_types(self) -> list[str]:
        """The model types that its engines are made from."""
        return [name for name, finding in self.models.items() if not finding or finding.level != "refused"]

    @abstractmethod
    def chunks_prompts(self, architecture: Dimensions, precision: Precision, kv: KvPrecision, /) -> bool:
        """Whether the engine reads a long prompt in several steps."""

    def computes_in(self, precision: Precision) -> Literal["bf16", "fp16"]:
        """The type of what *precision* does not quantise, and of a 16-bit KV cache."""
        return precision.dtype if precision.dtype == "fp16" else self.sixteen_bit

    def step_tokens(self, concurrency: int, seq_len: int) -> int:
        """Most prompt tokens that one step computes for *concurrency* sequences of *seq_len* tokens."""
        return min(MAX_STEP_TOKENS, concurrency * seq_len)

    def required_sm(self, gpu_sm: int | None, precision: Precision) -> int | None:
        """The lowest SM that can load an engine built for *gpu_sm*; None where it needs no GPU."""
        return gpu_sm if self.compiled else precision.requires_sm(self.name)

    def __str__(self) -> str:
        return self.name
