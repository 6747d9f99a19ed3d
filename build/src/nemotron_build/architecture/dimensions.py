"""What the planner and the checks need of any model: its size, its tensors, what a token and a sequence hold.

A family gives its `weights`; everything else follows from them. Nothing here asks which family it is.
"""

from __future__ import annotations

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from nemotron_build.errors import CheckpointError, UnsupportedError

# A "linear" can be quantised; embedding and head stay 16 bit on GPUs; "other" is never quantised.
Role = Literal["embedding", "head", "linear", "other"]
# Beyond every dimension, context and rope base there is; what is larger is a mistake, and would take for ever to plan.
_LARGEST = 1 << 40
_MOST_LAYERS = 10_000


@dataclass(frozen=True)
class Weight:
    """Shape and role of one tensor; a matrix is (rows out, columns in)."""

    shape: tuple[int, ...]
    role: Role = "other"

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Dimensions(ABC):
    """The dimensions every family has, in the names of `config.json`."""

    model_type: ClassVar[str]

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    rms_norm_eps: float
    max_position_embeddings: int
    tie_word_embeddings: bool

    @abstractmethod
    def weights(self) -> dict[str, Weight]:
        """Every tensor a checkpoint of these dimensions holds, by name."""

    @property
    @abstractmethod
    def attention_layers(self) -> int:
        """How many layers keep keys and values."""

    @property
    @abstractmethod
    def activation_values_per_token(self) -> int:
        """Numbers that are live at once for one token in the widest layer, residual stream included."""

    def state_bytes_per_sequence(self) -> int:
        """Recurrent state of one sequence, bytes; it does not grow with the length."""
        return 0

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor."""
        return {name: weight.shape for name, weight in self.weights().items()}

    @property
    def parameters(self) -> int:
        """How many numbers the checkpoint holds."""
        return sum(weight.values for weight in self.weights().values())

    @property
    def kv_values_per_token(self) -> int:
        """Numbers the KV cache holds for one token: keys and values of every attention layer."""
        return 2 * self.attention_layers * self.num_key_value_heads * self.head_dim

    def differences(self, published: Mapping[str, Any]) -> list[str]:
        """Where these dimensions differ from a profile's *published* ones; the checkpoint's win."""
        own = {"model_type": self.model_type} | asdict(self)
        return [
            f"{name} {own[name]} instead of {value}"
            for name, value in published.items()
            if name in own and own[name] != value
        ]


def shared_dimensions(config: Mapping[str, Any], query_rows: int | None, no_bias: Iterable[str]) -> dict[str, Any]:
    """The fields of `Dimensions` in *config*, checked; the settings *no_bias* must be off.

    `head_dim` is never `hidden_size / heads`, which is wrong for both 4B models (3072 wide with 32 heads of 128, 3136
    with 40): without one in the file it is *query_rows* / heads.
    """
    for name in no_bias:
        if config.get(name):
            raise UnsupportedError(f"config.json sets {name}; checkpoints with such biases are not supported")
    heads = positive(config, "num_attention_heads")
    head_dim = config.get("head_dim") or config.get("attention_head_dim") or (query_rows or 0) // heads
    if not head_dim:
        raise CheckpointError("config.json names no head_dim and the weights hold no q_proj to read it from")
    kv_heads = positive(config, "num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise CheckpointError(f"config.json: {heads} heads cannot share {kv_heads} key-value heads evenly")
    return {
        "hidden_size": positive(config, "hidden_size"),
        "num_hidden_layers": positive(config, "num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": positive({"head_dim": head_dim}, "head_dim"),
        "intermediate_size": positive(config, "intermediate_size"),
        "vocab_size": positive(config, "vocab_size"),
        "rms_norm_eps": number(config, "rms_norm_eps", default=config.get("layer_norm_epsilon", 1e-6)),
        "max_position_embeddings": positive(config, "max_position_embeddings"),
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
    }


def positive(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """The positive integer called *name*; `CheckpointError` when it is none."""
    value = config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise CheckpointError(f"config.json: {name} must be a positive integer, got {reprlib.repr(value)}")
    if value > (_MOST_LAYERS if name == "num_hidden_layers" else _LARGEST):
        raise CheckpointError(f"config.json: {name} is {reprlib.repr(value)}, more than any model has")
    return value


def number(config: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """The positive number called *name*; `CheckpointError` when it is none."""
    value = config.get(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= _LARGEST:
        raise CheckpointError(f"config.json: {name} must be a positive number, got {reprlib.repr(value)}")
    return float(value)
