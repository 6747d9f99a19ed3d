"""The dimensions of both model families, read from a profile alone and from checkpoints of real size."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from checkpoints import write_sparse_checkpoint
from nemotron_build.architecture import HybridArchitecture, read_architecture
from nemotron_build.checkpoint import inspect
from nemotron_build.errors import BuildError, CheckpointError, UnsupportedError
from nemotron_triton.chat.profiles import profile, profile_names

SMALL_HYBRID: dict[str, Any] = dict(profile("nemotron-3-nano-4b").architecture) | {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "hybrid_override_pattern": "M-*M",
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 96,
    "mamba_num_heads": 4,
    "mamba_head_dim": 24,
    "ssm_state_size": 16,
    "n_groups": 2,
    "vocab_size": 1536,
    "max_position_embeddings": 4096,
}


@pytest.mark.parametrize(
    ("name", "parameters", "tensors", "kv_bytes", "state_bytes"),
    [
        ("llama-nemotron-nano-4b-v1.1", 4_512_746_496, 291, 131_072, 0),
        ("llama-nemotron-nano-8b-v1", 8_030_261_248, 291, 131_072, 0),
        # 21 layers x (96 x 80 x 128 x 4 bytes + 9728 channels x 3 columns x 2 bytes).
        ("nemotron-3-nano-4b", 3_973_556_832, 263, 16_384, 82_575_360 + 1_225_728),
    ],
)
def test_a_profile_alone_gives_the_whole_model(
    name: str, parameters: int, tensors: int, kv_bytes: int, state_bytes: int
) -> None:
    architecture = read_architecture(profile(name).architecture)

    assert architecture.parameters == parameters
    assert len(architecture.tensors()) == tensors
    assert 2 * architecture.kv_values_per_token == kv_bytes
    assert architecture.state_bytes_per_sequence() == state_bytes
    assert architecture.differences(profile(name).architecture) == []


def test_the_hybrid_is_as_large_as_the_published_file(tmp_path: Path, checkpoint: Path) -> None:
    """Headers differ by a few digits, because their tensors are in another order."""
    config = dict(profile("nemotron-3-nano-4b").architecture)
    write_sparse_checkpoint(tmp_path / "c", checkpoint, config, shards=1)

    size = (tmp_path / "c" / "model-00001-of-00001.safetensors").stat().st_size

    assert abs(size - 7_947_142_640) < 64


def test_every_tensor_has_its_role() -> None:
    weights = read_architecture(profile("nemotron-3-nano-4b").architecture).weights()
    roles = {role: [name for name, weight in weights.items() if weight.role == role] for role in ("embedding", "head")}

    assert roles == {"embedding": ["backbone.embeddings.weight"], "head": ["lm_head.weight"]}
    assert weights["backbone.layers.0.mixer.in_proj.weight"].shape == (7680 + 9728 + 96, 3136)
    assert all((weight.role != "other") == (len(weight.shape) == 2) for weight in weights.values())


def test_a_small_hybrid_checkpoint_is_inspected(tmp_path: Path, checkpoint: Path) -> None:
    folder = _write_hybrid(tmp_path / "c", checkpoint)
    for name in ("LICENSE.md", "chat_template.jinja", "modeling_nemotron_h.py", "README.md"):
        (folder / name).write_text("text")

    inspected = inspect(folder)

    assert isinstance(inspected.architecture, HybridArchitecture)
    assert inspected.dtype == "bfloat16"
    assert [path.name for path in inspected.licence_files] == ["LICENSE.md"]
    assert {path.name for path in inspected.files} >= {
        "chat_template.jinja",
        "model.safetensors",
        "modeling_nemotron_h.py",
        "tokenizer.json",
    }
    assert "README.md" not in {path.name for path in inspected.files}


def test_a_hybrid_is_compared_with_its_profile(tmp_path: Path, checkpoint: Path) -> None:
    inspected = inspect(_write_hybrid(tmp_path / "c", checkpoint))

    differences = inspected.architecture.differences(profile("nemotron-3-nano-4b").architecture)

    assert "hybrid_override_pattern M-*M instead of M-M-M-MM-M-M*-M-M*-M-M-M*-M-M-MM*-MMM-M-M-" in differences
    assert "mamba_num_heads 4 instead of 96" in differences
    assert "chunk_size" not in " ".join(differences)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hybrid_override_pattern": "M-*"}, "num_hidden_layers is 4, hybrid_override_pattern has 3"),
        ({"hybrid_override_pattern": "M-*E"}, "has layers 'E'; supported: M, -, *"),
        ({"hybrid_override_pattern": None}, "must be a string of layers, got None"),
        ({"mamba_num_heads": 0}, "mamba_num_heads must be a positive integer, got 0"),
        ({"mamba_proj_bias": True}, "config.json sets mamba_proj_bias"),
        ({"mlp_hidden_act": "silu"}, "mlp_hidden_act is 'silu'; supported: relu2"),
        ({"ssm_state_size": 32}, "config.json implies"),
        ({"head_dim": None}, "which config.json implies|config.json implies"),
        ({"model_type": "mamba"}, "model_type 'mamba'; engines are made from: llama, nemotron_h"),
    ],
)
def test_a_wrong_hybrid_is_one_clear_line(
    tmp_path: Path, checkpoint: Path, changes: dict[str, Any], complaint: str
) -> None:
    folder = _write_hybrid(tmp_path / "c", checkpoint)
    config = json.loads((folder / "config.json").read_text()) | changes
    # With no head_dim it is read from the weights; a wrong number of heads then shows in the shapes.
    config |= {"num_attention_heads": 2} if "head_dim" in changes else {}
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises((CheckpointError, UnsupportedError), match=complaint):
        inspect(folder)


def test_only_the_families_asked_for_are_inspected(tmp_path: Path, checkpoint: Path) -> None:
    folder = _write_hybrid(tmp_path / "c", checkpoint)

    with pytest.raises(UnsupportedError, match="model_type 'nemotron_h'; cpu engines are made from: llama"):
        inspect(folder, model_types=("llama",), purpose="cpu engines")


def test_other_model_types_have_no_architecture() -> None:
    with pytest.raises(BuildError, match="model_type 'gpt2'; known: llama, nemotron_h"):
        read_architecture({"model_type": "gpt2"})


@pytest.mark.parametrize("name", profile_names())
def test_a_checkpoint_of_real_size_is_planned_in_a_moment(tmp_path: Path, checkpoint: Path, name: str) -> None:
    write_sparse_checkpoint(tmp_path / "c", checkpoint, dict(profile(name).architecture))
    code = f"""
import re, time
from pathlib import Path
from nemotron_build.checkpoint import inspect
start = time.process_time()
parameters = inspect(Path({str(tmp_path / "c")!r})).architecture.parameters
# Not ru_maxrss: a child inherits that from the process that started it.
kilobytes = re.search("VmHWM: *\\t *([0-9]+) kB", Path("/proc/self/status").read_text())[1]
print(parameters, time.process_time() - start, kilobytes)
"""

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    parameters, seconds, kilobytes = run.stdout.split()
    assert int(parameters) == read_architecture(profile(name).architecture).parameters
    assert float(seconds) < 1
    assert int(kilobytes) < 200_000


def _write_hybrid(folder: Path, demo: Path) -> Path:
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(demo / name, folder / name)
    (folder / "config.json").write_text(json.dumps(SMALL_HYBRID | {"torch_dtype": "bfloat16"}))
    random = np.random.default_rng(0)
    tensors = read_architecture(SMALL_HYBRID).tensors().items()
    weights = {name: random.normal(0, 0.3, shape).astype(ml_dtypes.bfloat16) for name, shape in tensors}
    save_file(weights, folder / "model.safetensors")
    return folder
