"""The `nemotron_h` family: Mamba-2, MLP and attention layers in a pattern, no rotary embeddings (Nemotron-3 Nano 4B).

Knows ungated MLPs with squared ReLU and projections without bias, as published; mixture-of-experts layers are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nemotron_build.architecture.dimensions import Dimensions, Weight, positive, shared_dimensions
from nemotron_build.errors import CheckpointError, UnsupportedError

_NO_BIAS = ("attention_bias", "mlp_bias", "mamba_proj_bias", "use_bias")
_MAMBA, _MLP, _ATTENTION = "M", "-", "*"
_FP32_BYTES, _16_BIT_BYTES = 4, 2


@dataclass(frozen=True, kw_only=True)
class HybridArchitecture(Dimensions):
    """A `nemotron_h`, in the names of its `config.json`; the pattern has a letter for each layer."""

    model_type: ClassVar[str] = "nemotron_h"

    hybrid_override_pattern: str
    mamba_num_heads: int
    mamba_head_dim: int
    ssm_state_size: int
    n_groups: int
    conv_kernel: int
    chunk_size: int
    use_conv_bias: bool
    mlp_hidden_act: str

    @property
    def attention_layers(self) -> int:
        """Only those marked `*`."""
        return self.hybrid_override_pattern.count(_ATTENTION)

    @property
    def mamba_width(self) -> int:
        """Inner width of a Mamba layer: heads times head size, not a multiple of `hidden_size`."""
        return self.mamba_num_heads * self.mamba_head_dim

    @property
    def conv_channels(self) -> int:
        """Channels of the causal convolution: inner width, and B and C of every group."""
        return self.mamba_width + 2 * self.n_groups * self.ssm_state_size

    @property
    def activation_values_per_token(self) -> int:
        """Residual and normed input, beside the widest of Mamba (projected, convolved), MLP (up) and attention."""
        mamba = self.mamba_width + 2 * self.conv_channels + self.mamba_num_heads
        attention = (2 * self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim
        return 2 * self.hidden_size + max(mamba, attention, 2 * self.intermediate_size)

    def state_bytes_per_sequence(self) -> int:
        """Heads x head size x state of the recurrence, and the last kernel - 1 columns of the convolution, per layer.

        The recurrence is kept in fp32, as the model card asks; the convolution's columns are 16 bit.
        """
        recurrence = self.mamba_width * self.ssm_state_size * _FP32_BYTES
        convolution = self.conv_channels * (self.conv_kernel - 1) * _16_BIT_BYTES
        return self.hybrid_override_pattern.count(_MAMBA) * (recurrence + convolution)

    def weights(self) -> dict[str, Weight]:
        """See `Dimensions.weights`."""
        blocks = {_MAMBA: self._mamba(), _MLP: self._mlp(), _ATTENTION: self._attention()}
        weights = {"backbone.embeddings.weight": Weight((self.vocab_size, self.hidden_size), "embedding")}
        for layer, letter in enumerate(self.hybrid_override_pattern):
            weights[f"backbone.layers.{layer}.norm.weight"] = Weight((self.hidden_size,))
            weights |= {f"backbone.layers.{layer}.mixer.{name}": weight for name, weight in blocks[letter].items()}
        weights["backbone.norm_f.weight"] = Weight((self.hidden_size,))
        if not self.tie_word_embeddings:
            weights["lm_head.weight"] = Weight((self.vocab_size, self.hidden_size), "head")
        return weights

    def _mamba(self) -> dict[str, Weight]:
        heads, channels = self.mamba_num_heads, self.conv_channels
        bias = {"conv1d.bias": Weight((channels,))} if self.use_conv_bias else {}
        return bias | {
            "A_log": Weight((heads,)),
            "D": Weight((heads,)),
            "dt_bias": Weight((heads,)),
            "conv1d.weight": Weight((channels, 1, self.conv_kernel)),
            # Gate, convolved channels and time steps side by side.
            "in_proj.weight": Weight((self.mamba_width + channels + heads, self.hidden_size), "linear"),
            "norm.weight": Weight((self.mamba_width,)),
            "out_proj.weight": Weight((self.hidden_size, self.mamba_width), "linear"),
        }

    def _mlp(self) -> dict[str, Weight]:
        return {
            "up_proj.weight": Weight((self.intermediate_size, self.hidden_size), "linear"),
            "down_proj.weight": Weight((self.hidden_size, self.intermediate_size), "linear"),
        }

    def _attention(self) -> dict[str, Weight]:
        query = self.num_attention_heads * self.head_dim
        key = self.num_key_value_heads * self.head_dim
        return {
            "q_proj.weight": Weight((query, self.hidden_size), "linear"),
            "k_proj.weight": Weight((key, self.hidden_size), "linear"),
            "v_proj.weight": Weight((key, self.hidden_size), "linear"),
            "o_proj.weight": Weight((self.hidden_size, query), "linear"),
        }


def read_hybrid(config: Mapping[str, Any], query_rows: int | None) -> HybridArchitecture:
    """The `nemotron_h` in a parsed `config.json`; see `read_architecture`."""
    pattern = config.get("hybrid_override_pattern")
    if not isinstance(pattern, str) or not pattern:
        raise CheckpointError(f"config.json: hybrid_override_pattern must be a string of layers, got {pattern!r}")
    if unknown := sorted(set(pattern) - {_MAMBA, _MLP, _ATTENTION}):
        raise UnsupportedError(f"config.json: hybrid_override_pattern has layers {unknown[0]!r}; supported: M, -, *")
    if (layers := positive(config, "num_hidden_layers")) != len(pattern):
        raise CheckpointError(f"config.json: num_hidden_layers is {layers}, hybrid_override_pattern has {len(pattern)}")
    if (activation := config.get("mlp_hidden_act", "relu2")) != "relu2":
        raise UnsupportedError(f"config.json: mlp_hidden_act is {activation!r}; supported: relu2")
    return HybridArchitecture(
        **shared_dimensions(config, query_rows, _NO_BIAS),
        hybrid_override_pattern=pattern,
        mamba_num_heads=positive(config, "mamba_num_heads"),
        mamba_head_dim=positive(config, "mamba_head_dim"),
        ssm_state_size=positive(config, "ssm_state_size"),
        n_groups=positive(config, "n_groups"),
        conv_kernel=positive(config, "conv_kernel"),
        chunk_size=positive(config, "chunk_size"),
        use_conv_bias=bool(config.get("use_conv_bias", True)),
        mlp_hidden_act=activation,
    )
