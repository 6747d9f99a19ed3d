"""Small random `nemotron_h` checkpoints for tests, with the keys of the family's published config.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from nemotron_build.architecture import read_architecture

# Two Mamba layers, two MLPs and an attention layer. Rows are whole blocks of 128, as INT4 AWQ asks, `heads x head_dim`
# and the Mamba width are not `hidden_size`, as in the 4B.
HYBRID_CONFIG: dict[str, Any] = {
    "architectures": ["NemotronHForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_nemotron_h.NemotronHConfig",
        "AutoModelForCausalLM": "modeling_nemotron_h.NemotronHForCausalLM",
    },
    "chunk_size": 16,
    "conv_kernel": 4,
    "expand": 2,
    "head_dim": 32,
    "hidden_dropout": 0.0,
    "hidden_size": 128,
    "hybrid_override_pattern": "M-*M-",
    "initializer_range": 0.02,
    "intermediate_size": 384,
    "layer_norm_epsilon": 1e-05,
    "mamba_head_dim": 32,
    "mamba_hidden_act": "silu",
    "mamba_num_heads": 8,
    "mamba_proj_bias": False,
    "max_position_embeddings": 4096,
    "mlp_bias": False,
    "mlp_hidden_act": "relu2",
    "model_type": "nemotron_h",
    "n_groups": 2,
    "num_attention_heads": 8,
    "num_hidden_layers": 5,
    "num_key_value_heads": 2,
    "num_logits_to_keep": 1,
    "rescale_prenorm_residual": True,
    "residual_in_fp32": False,
    "rms_norm_eps": 1e-05,
    "sliding_window": None,
    "ssm_state_size": 16,
    "tie_word_embeddings": False,
    "time_step_floor": 0.0001,
    # JSON has no infinity; Python's json writes it like this, and so does the family's config.json.
    "time_step_limit": [0.0, float("inf")],
    "time_step_max": 0.1,
    "time_step_min": 0.001,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.48.3",
    "use_bias": False,
    "use_cache": True,
    "use_conv_bias": True,
    "use_mamba_kernels": True,
    "vocab_size": 1536,
}


def write_hybrid_checkpoint(folder: Path, demo: Path, *, seed: int = 0, **changes: Any) -> dict[str, npt.NDArray[Any]]:
    """Write a random hybrid with the demo's tokenizer and *changes* in config.json, and return its weights."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(demo / name, folder / name)
    tokens = json.loads((demo / "config.json").read_text())
    tokens = {name: tokens[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = HYBRID_CONFIG | tokens | changes
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(seed)
    weights = {
        name: _values(random, name, shape).astype(ml_dtypes.bfloat16)
        for name, shape in read_architecture(config).tensors().items()
    }
    save_file(weights, folder / "model.safetensors")
    return weights


def _values(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    if name.endswith("A_log"):
        return np.asarray(np.log(random.uniform(1, 16, shape)))
    if name.endswith("dt_bias"):
        return random.uniform(-5, -1, shape)
    if len(shape) == 1:
        return random.uniform(0.5, 1.5, shape)
    # Squared ReLU amplifies large values: rows of length one keep the output of every layer near one.
    return random.normal(0, shape[-1] ** -0.5, shape)
