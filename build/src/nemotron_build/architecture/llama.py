"""The dense Llama family: Llama-3.1-Nemotron-Nano 4B and 8B. Checkpoints with biases are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nemotron_build.architecture.dimensions import Dimensions, Weight, number, positive, shared_dimensions
from nemotron_build.errors import CheckpointError, UnsupportedError


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama 3's frequency scaling of rotary embeddings, in the names of `config.json`."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int
    rope_type: str = "llama3"


@dataclass(frozen=True, kw_only=True)
class Architecture(Dimensions):
    """A dense Llama, in the names of its `config.json`."""

    model_type: ClassVar[str] = "llama"

    rope_theta: float
    rope_scaling: RopeScaling | None

    @property
    def attention_layers(self) -> int:
        """All of them."""
        return self.num_hidden_layers

    @property
    def activation_values_per_token(self) -> int:
        """Residual and normed input, beside the wider of attention (q, k, v, output) and MLP (gate, up)."""
        attention = (2 * self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim
        return 2 * self.hidden_size + max(attention, 2 * self.intermediate_size)

    def weights(self) -> dict[str, Weight]:
        """See `Dimensions.weights`."""
        query = self.num_attention_heads * self.head_dim
        key = self.num_key_value_heads * self.head_dim
        block = {
            "input_layernorm": Weight((self.hidden_size,)),
            "self_attn.q_proj": Weight((query, self.hidden_size), "linear"),
            "self_attn.k_proj": Weight((key, self.hidden_size), "linear"),
            "self_attn.v_proj": Weight((key, self.hidden_size), "linear"),
            "self_attn.o_proj": Weight((self.hidden_size, query), "linear"),
            "post_attention_layernorm": Weight((self.hidden_size,)),
            "mlp.gate_proj": Weight((self.intermediate_size, self.hidden_size), "linear"),
            "mlp.up_proj": Weight((self.intermediate_size, self.hidden_size), "linear"),
            "mlp.down_proj": Weight((self.hidden_size, self.intermediate_size), "linear"),
        }
        weights = {"model.embed_tokens.weight": Weight((self.vocab_size, self.hidden_size), "embedding")}
        for layer in range(self.num_hidden_layers):
            weights |= {f"model.layers.{layer}.{name}.weight": weight for name, weight in block.items()}
        weights["model.norm.weight"] = Weight((self.hidden_size,))
        if not self.tie_word_embeddings:
            weights["lm_head.weight"] = Weight((self.vocab_size, self.hidden_size), "head")
        return weights


def read_llama(config: Mapping[str, Any], query_rows: int | None) -> Architecture:
    """The Llama in a parsed `config.json`; see `read_architecture`."""
    shared = shared_dimensions(config, query_rows, no_bias=("attention_bias", "mlp_bias"))
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise CheckpointError(f"config.json: the rope settings must be an object, got {rope!r}")
    if shared["head_dim"] % 2:
        raise CheckpointError(
            f"config.json: head_dim is {shared['head_dim']}; rotary embeddings turn pairs, so it must be even"
        )
    return Architecture(
        **shared,
        rope_theta=number(rope if "rope_theta" in rope else config, "rope_theta", default=10000.0),
        rope_scaling=_rope_scaling(rope),
    )


def _rope_scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise UnsupportedError(f"config.json asks for rope scaling {kind!r}; supported: llama3, default")
    return RopeScaling(
        factor=number(rope, "factor"),
        low_freq_factor=number(rope, "low_freq_factor"),
        high_freq_factor=number(rope, "high_freq_factor"),
        original_max_position_embeddings=positive(rope, "original_max_position_embeddings"),
    )
