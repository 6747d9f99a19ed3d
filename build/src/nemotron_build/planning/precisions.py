"""How weights and KV cache can be stored, and how many bytes that takes. Pure arithmetic on shapes.

Sizes are those of the formats; what a runtime pads or keeps twice is not in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nemotron_build.architecture import Dimensions, Role, Weight
from nemotron_build.errors import UnsupportedError

AUTO = "auto"
# What a user may ask for; bf16 and fp16 both mean 16 bit, in the type the engine computes in.
KV_PRECISIONS = (AUTO, "bf16", "fp16", "fp8", "int8")


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One way to store the weights.

    `scales_per` is what shares one scale of `scale_bits`: a tensor, a row (output channel) or a block of `block_size`
    values along a row. `roles` are the tensors it applies to; all others take `other_bits`. `arithmetic` is what the
    matrix products run in, `quant_algo` TensorRT-LLM's name for it.
    """

    name: str
    weight_bits: int
    scales_per: Literal["nothing", "tensor", "row", "block"] = "nothing"
    scale_bits: int = 0
    block_size: int = 1
    roles: frozenset[Role] = frozenset({"linear"})
    other_bits: int = 16
    arithmetic: Literal["bf16", "fp8", "int8", "fp4"] = "bf16"
    quant_algo: str | None = None

    def bits_of(self, weight: Weight) -> int:
        """Bits of its values, scales apart."""
        return weight.values * (self.weight_bits if weight.role in self.roles else self.other_bits)

    def scale_bits_of(self, weight: Weight) -> int:
        """Bits of its scales."""
        if weight.role not in self.roles:
            return 0
        scales = {
            "nothing": 0,
            "tensor": 1,
            "row": weight.values // weight.shape[-1],
            "block": -(-weight.values // self.block_size),
        }
        return scales[self.scales_per] * self.scale_bits


@dataclass(frozen=True, kw_only=True)
class WeightBytes:
    """What the weights take, bytes, by part; `linear` are the quantised matrices without their `scales`."""

    embedding: int
    head: int
    linear: int
    scales: int
    other: int
    tied: bool

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + self.head + self.linear + self.scales + self.other

    @property
    def read_per_step(self) -> int:
        """What one decoding step reads: all but the input embedding, which is read only where it is the head too."""
        return self.total - (0 if self.tied else self.embedding)


def weight_bytes(architecture: Dimensions, precision: Precision) -> WeightBytes:
    """The size of *architecture*'s weights at *precision*, by part."""
    bits: dict[str, int] = {"embedding": 0, "head": 0, "linear": 0, "other": 0}
    scale_bits = 0
    for weight in architecture.weights().values():
        bits[weight.role] += precision.bits_of(weight)
        scale_bits += precision.scale_bits_of(weight)
    parts = {role: -(-count // 8) for role, count in bits.items()}
    return WeightBytes(**parts, scales=-(-scale_bits // 8), tied=architecture.tie_word_embeddings)


def find_precision(name: str, kind: str) -> Precision:
    """The precision called *name* as engines of *kind* store it; `UnsupportedError` lists the names."""
    known = {each.name: each for each in PRECISIONS} | ({each.name: each for each in _CPU} if kind == "cpu" else {})
    if name not in known:
        raise UnsupportedError(f"--precision {name} does not exist; known: {AUTO}, {', '.join(PRECISION_NAMES)}")
    return known[name]


# Nearest first: among those of one size the earlier is suggested instead of another.
PRECISIONS = (
    Precision(name="bf16", weight_bits=16),
    Precision(name="fp16", weight_bits=16),
    # ModelOpt keeps a scale of weights and one of activations per matrix, FP32.
    Precision(name="fp8", weight_bits=8, scales_per="tensor", scale_bits=64, arithmetic="fp8", quant_algo="FP8"),
    Precision(
        name="int8-sq",
        weight_bits=8,
        scales_per="row",
        scale_bits=32,
        arithmetic="int8",
        quant_algo="W8A8_SQ_PER_CHANNEL",
    ),
    Precision(
        name="fp8-rowwise",
        weight_bits=8,
        scales_per="row",
        scale_bits=32,
        arithmetic="fp8",
        quant_algo="FP8_PER_CHANNEL_PER_TOKEN",
    ),
    Precision(name="int8-wo", weight_bits=8, scales_per="row", scale_bits=16, quant_algo="W8A16"),
    Precision(
        name="nvfp4",
        weight_bits=4,
        scales_per="block",
        scale_bits=8,
        block_size=16,
        arithmetic="fp4",
        quant_algo="NVFP4",
    ),
    Precision(
        name="int4-awq",
        weight_bits=4,
        scales_per="block",
        scale_bits=16,
        block_size=128,
        quant_algo="W4A16_AWQ",
    ),
    Precision(
        name="w4a8-awq",
        weight_bits=4,
        scales_per="block",
        scale_bits=16,
        block_size=128,
        arithmetic="fp8",
        quant_algo="W4A8_AWQ",
    ),
    Precision(name="int4-wo", weight_bits=4, scales_per="row", scale_bits=16, quant_algo="W4A16"),
)
PRECISION_NAMES = tuple(each.name for each in PRECISIONS)

# llama.cpp: blocks of 32 with a 16-bit scale (Q8_0, Q4_0), embedding and head included; norms in FP32.
_MATRICES: frozenset[Role] = frozenset({"linear", "embedding", "head"})
_CPU = (
    Precision(name="bf16", weight_bits=16, roles=_MATRICES, other_bits=32),
    Precision(name="fp16", weight_bits=16, roles=_MATRICES, other_bits=32),
    Precision(
        name="int8-wo",
        weight_bits=8,
        scales_per="block",
        scale_bits=16,
        block_size=32,
        roles=_MATRICES,
        other_bits=32,
    ),
    Precision(
        name="int4-wo",
        weight_bits=4,
        scales_per="block",
        scale_bits=16,
        block_size=32,
        roles=_MATRICES,
        other_bits=32,
    ),
)
