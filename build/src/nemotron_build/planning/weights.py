"""How many bytes a model's weights take at a precision. Pure arithmetic on shapes."""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_build.architecture import Dimensions
from nemotron_build.precisions import Precision


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
        bits[weight.role] += precision.storage.bits_of(weight)
        scale_bits += precision.storage.scale_bits_of(weight)
    parts = {role: -(-count // 8) for role, count in bits.items()}
    return WeightBytes(**parts, scales=-(-scale_bits // 8), tied=architecture.tie_word_embeddings)
