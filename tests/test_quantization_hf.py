"""The real ModelOpt 0.47 on the CPU: small checkpoints of both families become bundles of the `pytorch` kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints import write_checkpoint
from hf_exports import write_tensors
from hybrid_checkpoints import write_hybrid_checkpoint
from nemotron_build.checkpoint import inspect
from nemotron_build.engine import EngineSpec, build
from nemotron_build.errors import VerificationError
from nemotron_build.precisions import PRECISIONS
from nemotron_build.quantization.environment import MODELOPT_HF
from nemotron_build.verification.hf_checkpoint import check_hf_checkpoint
from nemotron_build.verification.tensors import read_tensors
from nemotron_triton.bundle import Bundle

pytestmark = pytest.mark.quantization

# As in the 4B: heads x head_dim is not hidden_size, and the rotary embedding is scaled.
LLAMA: dict[str, Any] = {
    "hidden_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "tie_word_embeddings": False,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    },
}
BUILDS = [("llama", "fp8", "fp8"), ("nemotron_h", "fp8", "fp8"), ("nemotron_h", "int4-awq", "bf16")]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A folder with the sources, and with the bundles of `BUILDS` made from them."""
    folder = tmp_path_factory.mktemp("pytorch")
    write_checkpoint(folder / "llama", checkpoint, **LLAMA)
    write_hybrid_checkpoint(folder / "nemotron_h", checkpoint)
    for name in ("LICENSE", "chat_template.jinja"):
        (folder / "nemotron_h" / name).write_text(name)
    # Code that a checkpoint brings is carried along, and never run.
    for name in ("configuration_nemotron_h.py", "modeling_nemotron_h.py"):
        (folder / "nemotron_h" / name).write_text("raise SystemExit('code of a checkpoint was run')\n")
    MODELOPT_HF.python(log=folder / "environment.log")

    def make(family: str, precision: str, kv_precision: str) -> None:
        spec = EngineSpec(
            checkpoint=folder / family,
            gpu="h100",
            engine_kind="pytorch",
            precision=precision,
            kv_precision=kv_precision,
            calibration_samples=2,
            quality_samples=1,
            device="cpu",
        )
        build(spec, folder / f"{family}-{precision}")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make, *zip(*BUILDS, strict=True)))
    return folder


@pytest.mark.parametrize(("family", "precision", "kv_precision"), BUILDS)
def test_a_checkpoint_becomes_a_bundle(built: Path, family: str, precision: str, kv_precision: str) -> None:
    bundle = Bundle.open(built / f"{family}-{precision}")

    manifest = bundle.manifest
    engine = bundle.path / "engine"
    assert (manifest.kind, manifest.state, manifest.ran_on_this_hardware) == ("pytorch", "complete", False)
    assert (manifest.precision, manifest.kv_precision) == (precision, kv_precision)
    # Random weights have no favourite token, and still agree far more often than chance, 1 in 1536.
    assert manifest.quality is not None
    assert manifest.quality.top1_agreement > 0.2
    matrices = {"llama": 14, "nemotron_h": 12}[family]
    algorithm = PRECISIONS.find(precision, "pytorch").quant_algo
    assert f"{algorithm} is on record for {matrices} matrices and for nothing else" in manifest.checks
    source = inspect(built / family)
    assert {path.name for path in source.files} | {"hf_quant_config.json"} == {path.name for path in engine.iterdir()}
    assert (engine / "generation_config.json").read_bytes() == (source.path / "generation_config.json").read_bytes()


def test_settings_keep_the_names_that_tensorrt_llm_knows(built: Path) -> None:
    llama = json.loads((built / "llama-fp8" / "engine" / "config.json").read_text())
    hybrid = json.loads((built / "nemotron_h-fp8" / "engine" / "config.json").read_text())

    assert (llama["rope_theta"], llama["rope_scaling"]) == (LLAMA["rope_theta"], LLAMA["rope_scaling"])
    assert (hybrid["hybrid_override_pattern"], hybrid["num_hidden_layers"]) == ("M-*M-", 5)
    assert hybrid["time_step_limit"] == [0.0, float("inf")]
    assert hybrid["quantization_config"]["ignore"] == [
        "lm_head",
        "backbone.embeddings",
        "backbone.layers.0.mixer.conv1d",
        "backbone.layers.3.mixer.conv1d",
    ]


def test_a_hybrid_is_quantised_in_its_matrices_only(built: Path) -> None:
    tensors = read_tensors(built / "nemotron_h-fp8" / "engine" / "model.safetensors")

    quantised = {name.rsplit(".", 2)[1] for name, values in tensors.items() if values.dtype.itemsize == 1}
    assert quantised == {"in_proj", "out_proj", "up_proj", "down_proj", "q_proj", "k_proj", "v_proj", "o_proj"}
    assert {name for name in tensors if name.endswith((".k_scale", ".v_scale"))} == {
        "backbone.layers.2.mixer.k_proj.k_scale",
        "backbone.layers.2.mixer.v_proj.v_scale",
    }


@pytest.mark.parametrize(
    ("family", "precision", "name", "change", "complaint"),
    [
        (
            "llama",
            "fp8",
            "model.layers.1.mlp.up_proj.weight_scale",
            np.zeros_like,
            r"up_proj\.weight_scale holds 0\.0",
        ),
        (
            "nemotron_h",
            "int4-awq",
            "backbone.layers.0.mixer.in_proj.weight_scale",
            np.zeros_like,
            r"in_proj\.weight_scale holds 0\.0",
        ),
        # Smoothing of q, k and v is in the norm before them.
        (
            "nemotron_h",
            "int4-awq",
            "backbone.layers.2.norm.weight",
            lambda norm: norm * norm.dtype.type(3),
            r"layers\.2\.mixer\.[kqv]_proj\.weight is \d+% off",
        ),
        (
            "nemotron_h",
            "int4-awq",
            "backbone.layers.1.mixer.up_proj.weight",
            lambda weight: weight[::-1],
            r"up_proj\.weight is \d+% off the source's",
        ),
    ],
)
def test_a_corrupted_export_is_caught(
    tmp_path: Path,
    built: Path,
    family: str,
    precision: str,
    name: str,
    change: Callable[[Any], Any],
    complaint: str,
) -> None:
    folder = tmp_path / "engine"
    shutil.copytree(built / f"{family}-{precision}" / "engine", folder)
    file = folder / "model.safetensors"
    tensors = {tensor: values.copy() for tensor, values in read_tensors(file).items()}
    write_tensors(file, tensors | {name: change(tensors[name])})
    row, kv = PRECISIONS.find(precision, "pytorch"), PRECISIONS.find_kv({"fp8": "fp8", "int4-awq": "bf16"}[precision])

    with pytest.raises(VerificationError, match=complaint):
        check_hf_checkpoint(folder, inspect(built / family), row, kv)
