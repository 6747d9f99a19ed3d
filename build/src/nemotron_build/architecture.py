"""The dimensions of a Llama checkpoint, and the tensors they imply. Pure: reads nothing from disk.

Knows the dense Llama family only; `nemotron_h` and others are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nemotron_build.errors import CheckpointError, UnsupportedError

SUPPORTED_MODEL_TYPES = ("llama",)
_NO_BIAS = ("attention_bias", "mlp_bias")


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama 3's frequency scaling of rotary embeddings (`rope_type` llama3)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A dense Llama, in the names of its `config.json`."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    max_position_embeddings: int
    tie_word_embeddings: bool

    @property
    def kv_values_per_token(self) -> int:
        """Numbers the KV cache holds for one token: keys and values of every layer."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor a checkpoint of these dimensions holds."""
        query = self.num_attention_heads * self.head_dim
        key = self.num_key_value_heads * self.head_dim
        block = {
            "input_layernorm": (self.hidden_size,),
            "self_attn.q_proj": (query, self.hidden_size),
            "self_attn.k_proj": (key, self.hidden_size),
            "self_attn.v_proj": (key, self.hidden_size),
            "self_attn.o_proj": (self.hidden_size, query),
            "post_attention_layernorm": (self.hidden_size,),
            "mlp.gate_proj": (self.intermediate_size, self.hidden_size),
            "mlp.up_proj": (self.intermediate_size, self.hidden_size),
            "mlp.down_proj": (self.hidden_size, self.intermediate_size),
        }
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, self.hidden_size)}
        for layer in range(self.num_hidden_layers):
            shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
        shapes["model.norm.weight"] = (self.hidden_size,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, self.hidden_size)
        return shapes

    def differences(self, published: Mapping[str, int]) -> list[str]:
        """Where these dimensions differ from a profile's *published* ones; the checkpoint's win."""
        own = asdict(self)
        return [f"{name} {own[name]} instead of {value}" for name, value in published.items() if own[name] != value]


def read_architecture(config: Mapping[str, Any], query_rows: int | None) -> Architecture:
    """The architecture in a parsed `config.json`.

    *query_rows* is the number of rows of the first layer's `q_proj`: where the file names no `head_dim`, that is where
    it is read from. It is never `hidden_size / heads`, which is wrong for the Nano 4B (3072 wide, 32 heads of 128).
    """
    model_type = config.get("model_type")
    if model_type not in SUPPORTED_MODEL_TYPES:
        raise UnsupportedError(
            f"config.json has model_type {model_type!r}; cpu engines are made from: {', '.join(SUPPORTED_MODEL_TYPES)}"
        )
    for name in _NO_BIAS:
        if config.get(name):
            raise UnsupportedError(f"config.json sets {name}; Llama checkpoints with biases are not supported")
    heads = _positive(config, "num_attention_heads")
    head_dim = config.get("head_dim") or (query_rows or 0) // heads
    if not head_dim:
        raise CheckpointError("config.json names no head_dim and the weights hold no q_proj to read it from")
    kv_heads = _positive(config, "num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise CheckpointError(f"config.json: {heads} heads cannot share {kv_heads} key-value heads evenly")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise CheckpointError(f"config.json: the rope settings must be an object, got {rope!r}")
    if isinstance(head_dim, int) and head_dim % 2:
        raise CheckpointError(f"config.json: head_dim is {head_dim}; rotary embeddings turn pairs, so it must be even")
    return Architecture(
        hidden_size=_positive(config, "hidden_size"),
        num_hidden_layers=_positive(config, "num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=_positive({"head_dim": head_dim}, "head_dim"),
        intermediate_size=_positive(config, "intermediate_size"),
        vocab_size=_positive(config, "vocab_size"),
        rms_norm_eps=_number(config, "rms_norm_eps", default=1e-6),
        rope_theta=_number(rope if "rope_theta" in rope else config, "rope_theta", default=10000.0),
        rope_scaling=_rope_scaling(rope),
        max_position_embeddings=_positive(config, "max_position_embeddings"),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def _rope_scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise UnsupportedError(f"config.json asks for rope scaling {kind!r}; supported: llama3, default")
    return RopeScaling(
        factor=_number(rope, "factor"),
        low_freq_factor=_number(rope, "low_freq_factor"),
        high_freq_factor=_number(rope, "high_freq_factor"),
        original_max_position_embeddings=_positive(rope, "original_max_position_embeddings"),
    )


def _positive(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise CheckpointError(f"config.json: {name} must be a positive integer, got {value!r}")
    return value


def _number(config: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = config.get(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value <= 0:
        raise CheckpointError(f"config.json: {name} must be a positive number, got {value!r}")
    return float(value)
