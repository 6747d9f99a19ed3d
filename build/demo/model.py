"""A small Llama in torch: the arithmetic and the tensor names of Hugging Face's LlamaForCausalLM, and nothing else.

Float32 inside. A row of a batch is padded on the right, so causal attention alone keeps padding out of sight.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """The dimensions, under the names of config.json."""

    vocab_size: int = 1536
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 3
    num_key_value_heads: int = 1
    head_dim: int = 64
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    max_position_embeddings: int = 2048


class Norm(nn.Module):
    """RMSNorm."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Scale every vector to a root mean square of one, then by the weights."""
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps))


class Attention(nn.Module):
    """Causal attention with grouped queries and rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        queries, keys = (n * shape.head_dim for n in (shape.num_attention_heads, shape.num_key_value_heads))
        self.q_proj = nn.Linear(shape.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """Attend to the tokens up to a token's own position."""
        rows, length, _ = x.shape
        query, key, value = (
            project(x).view(rows, length, -1, self.shape.head_dim).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = _rotated(query, rotation), _rotated(key, rotation)
        repeat = self.shape.num_attention_heads // self.shape.num_key_value_heads
        key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))
        return out


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Gate, then project back."""
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """One decoder layer; its parts are named as in the checkpoint."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = Mlp(shape)
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)


class Llama(nn.Module):
    """The decoder with tied embeddings, with random weights from torch's generator."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)
        nn.init.constant_(self.norm.weight, 0.3)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                small = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.1 if "embed" in name else 0.01 if small else weight.shape[1] ** -0.5)

    def forward(self, ids: Tensor) -> Tensor:
        """The last layer's vectors for *ids* (rows x length)."""
        rotation = _rotation(self.shape, ids.shape[1])
        x: Tensor = self.embed_tokens(ids)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            x = x + layer.self_attn(layer.input_layernorm(x), rotation)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        out: Tensor = self.norm(x)
        return out

    def logits(self, vectors: Tensor) -> Tensor:
        """Scores of the next token."""
        return vectors @ self.embed_tokens.weight.T

    @torch.no_grad()
    def start_copying(self) -> None:
        """Give the first two layers an induction head, the circuit that copies: numbers are learned only with it.

        Head 0 of layer 0 attends to the previous token and writes its identity into the present position. Head 0 of
        layer 1 attends to the positions where that identity is the present token's, and raises the logits of the token
        at each.
        """
        width, size = self.shape.hidden_size, self.shape.head_dim
        first, second = (layer.self_attn for layer in self.layers[:2] if isinstance(layer, Layer))
        # A constant in the first dimension lets the first head see nothing but positions.
        self.embed_tokens.weight[:, 0] = 4 * self.embed_tokens.weight.std()
        constant = 4 / math.sqrt(1 + 16 / width)
        speeds = _speeds(self.shape)
        fast = (speeds > 0.1).float() * math.sqrt(6 * math.sqrt(size)) / constant
        half = size // 2
        first.q_proj.weight[:size] *= 0.1
        first.k_proj.weight[:size] *= 0.3
        first.q_proj.weight[:half, 0] += fast
        # Turned by one position, the key fits best where it stands one token earlier.
        first.k_proj.weight[:half, 0] += fast * torch.cos(speeds)
        first.k_proj.weight[half:size, 0] += fast * torch.sin(speeds)
        meaning, place, vote = (nn.init.orthogonal_(torch.empty(size, width)) for _ in range(3))
        meaning[:, 0] = 0
        first.v_proj.weight[:size] = meaning
        first.o_proj.weight[:, :size] = 0.35 * place.T
        # Only dimensions that hardly turn with distance can compare tokens far apart.
        slow = torch.arange(size)[(speeds < 0.006).repeat(2)]
        second.q_proj.weight[:size] *= 0.1
        second.k_proj.weight[:size] *= 0.1
        second.q_proj.weight[slow] += 2.0 * meaning[slow]
        second.k_proj.weight[slow] += 2.0 * place[slow]
        second.v_proj.weight[:size] = vote
        second.o_proj.weight[:, :size] = 0.5 * vote.T


def write(model: Llama, directory: Path, tokens: dict[str, int | list[int]]) -> None:
    """Write `model.safetensors` in bfloat16, and `config.json` with the ids in *tokens*."""
    tensors = {
        f"model.{name}": weight.detach().to(torch.bfloat16).contiguous() for name, weight in model.named_parameters()
    }
    file = directory / "model.safetensors"
    save_file(tensors, file, metadata={"format": "pt"})
    file.chmod(0o644)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **asdict(model.shape)}
    config |= {"hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False}
    config |= {"tie_word_embeddings": True, "initializer_range": 0.02, "pretraining_tp": 1, "rope_scaling": None}
    config |= {"torch_dtype": "bfloat16", "use_cache": True, **tokens}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read(directory: Path) -> Llama:
    """Read what `write` wrote."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    model = Llama(Shape(**{name: config[name] for name in asdict(Shape())}))
    tensors = load_file(directory / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): weight.float() for name, weight in tensors.items()})
    return model


def _speeds(shape: Shape) -> Tensor:
    """Radians per position of each pair of dimensions."""
    return shape.rope_theta ** -(torch.arange(0, shape.head_dim, 2) / shape.head_dim)


def _rotation(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    angles = torch.arange(length)[:, None] * _speeds(shape)
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


def _rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate dimension i with dimension i + half, as Hugging Face checkpoints expect."""
    low, high = x.chunk(2, -1)
    return x * rotation[0] + torch.cat((-high, low), -1) * rotation[1]
