"""ModelOpt's exports for TensorRT-LLM's PyTorch backend are corrected or refused; no ModelOpt runs here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from checkpoints import write_checkpoint
from hf_exports import write_fp8_export, write_tensors
from hybrid_checkpoints import write_hybrid_checkpoint
from nemotron_build.checkpoint import Checkpoint, inspect
from nemotron_build.errors import VerificationError
from nemotron_build.precisions import PRECISIONS
from nemotron_build.stages.hf_export import complete_export
from nemotron_build.verification.hf_checkpoint import check_hf_checkpoint
from nemotron_build.verification.hf_layouts import HF_LAYOUTS
from nemotron_build.verification.tensors import read_tensors, relative_distance

FP8, FP8_KV = PRECISIONS.find("fp8", "pytorch"), PRECISIONS.find_kv("fp8")
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
Tensors = dict[str, npt.NDArray[Any]]
Q_PROJ, Q_SCALE = (f"model.layers.1.self_attn.q_proj.{name}" for name in ("weight", "weight_scale"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> dict[str, Checkpoint]:
    """A checkpoint of each family, with a licence, a template and code of their own."""
    folder = tmp_path_factory.mktemp("sources")
    write_checkpoint(
        folder / "llama",
        checkpoint,
        hidden_size=128,
        num_attention_heads=2,
        head_dim=128,
        num_hidden_layers=2,
        rope_theta=500000.0,
        rope_scaling=LLAMA3_SCALING,
        tie_word_embeddings=False,
    )
    write_hybrid_checkpoint(folder / "nemotron_h", checkpoint)
    for family in ("llama", "nemotron_h"):
        for name in ("LICENSE", "chat_template.jinja", "modeling_nemotron_h.py"):
            (folder / family / name).write_text(name)
    return {family: inspect(folder / family) for family in ("llama", "nemotron_h")}


@pytest.mark.parametrize("family", ["llama", "nemotron_h"])
def test_an_export_becomes_what_tensorrt_llm_reads(tmp_path: Path, sources: dict[str, Checkpoint], family: str) -> None:
    source = sources[family]
    write_fp8_export(tmp_path / "export", source)

    complete_export(tmp_path / "export", source)

    checks = check_hf_checkpoint(tmp_path / "export", source, FP8, FP8_KV)
    matrices = {"llama": 14, "nemotron_h": 12}[family]
    assert f"FP8 is on record for {matrices} matrices and for nothing else" in checks
    config, own = (json.loads((path / "config.json").read_text()) for path in (tmp_path / "export", source.path))
    assert {name for name in config if config[name] != own.get(name)} == {"quantization_config"}
    assert {path.name for path in (tmp_path / "export").iterdir()} == {
        *(path.name for path in source.files),
        "hf_quant_config.json",
    }
    # Later changes to the source must not change the export.
    assert not any(path.samefile(tmp_path / "export" / path.name) for path in source.files)


@pytest.mark.parametrize(
    ("family", "complaint"),
    [("llama", "config.json has rope_parameters .* instead of None"), ("nemotron_h", "no longer describes the source")],
)
def test_an_export_is_refused_as_it_comes(
    tmp_path: Path, sources: dict[str, Checkpoint], family: str, complaint: str
) -> None:
    write_fp8_export(tmp_path / "export", sources[family])

    with pytest.raises(VerificationError, match=complaint):
        check_hf_checkpoint(tmp_path / "export", sources[family], FP8, FP8_KV)


def test_modules_that_no_loader_would_find_are_noticed(tmp_path: Path, sources: dict[str, Checkpoint]) -> None:
    source = sources["nemotron_h"]
    write_fp8_export(tmp_path / "export", source)
    marked = (tmp_path / "export" / "hf_quant_config.json").read_text()
    complete_export(tmp_path / "export", source)
    (tmp_path / "export" / "hf_quant_config.json").write_text(marked)

    with pytest.raises(VerificationError, match=r"not exclude backbone\.embeddings .*not exclude lm_head from"):
        check_hf_checkpoint(tmp_path / "export", source, FP8, FP8_KV)


def _drop_layer(tensors: Tensors) -> None:
    for name in [name for name in tensors if ".layers.1." in name]:
        del tensors[name]


def _requantize(tensors: Tensors) -> None:
    tensors[Q_PROJ] = tensors[Q_PROJ].astype(ml_dtypes.bfloat16)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.update({Q_SCALE: np.zeros((), np.float32)}), f"{Q_SCALE} holds 0.0, and a scale"),
        (lambda t: t.update({Q_SCALE: np.full((), np.nan, np.float32)}), f"{Q_SCALE} holds nan, and a scale"),
        (lambda t: t.update({Q_SCALE: np.float32(2) * t[Q_SCALE]}), f"{Q_PROJ} is 100% off the source's"),
        (lambda t: t.pop("model.layers.0.self_attn.k_proj.k_scale"), r"k_proj\.k_scale is missing"),
        (_drop_layer, r"model\.layers\.1\.input_layernorm\.weight is missing; .* and \d+ more"),
        (_requantize, f"{Q_PROJ} is bfloat16 .* instead of float8_e4m3fn"),
        (lambda t: t.update({Q_PROJ: t[Q_PROJ][::-1]}), f"{Q_PROJ} is 1[34]\\d% off the source's"),
        (lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]}), "lm_head.weight is not the source's"),
        (lambda t: t.update({"model.layers.2.x": np.zeros(1, np.float32)}), r"model\.layers\.2\.x does not belong"),
    ],
    ids=["zero", "nan", "doubled", "kv", "dropped", "unquantised", "shuffled", "head", "foreign"],
)
def test_a_corrupted_export_is_refused(
    tmp_path: Path, sources: dict[str, Checkpoint], change: Callable[[Tensors], Any], complaint: str
) -> None:
    folder = _exported(tmp_path, sources["llama"])
    tensors = {name: values.copy() for name, values in read_tensors(folder / "model.safetensors").items()}
    change(tensors)
    write_tensors(folder / "model.safetensors", tensors)

    with pytest.raises(VerificationError, match=complaint):
        check_hf_checkpoint(folder, sources["llama"], FP8, FP8_KV)


@pytest.mark.parametrize(
    ("file", "changes", "complaint"),
    [
        ("config.json", {"head_dim": 64}, "describes Architecture"),
        ("config.json", {"hidden_act": "gelu"}, "has hidden_act 'gelu' instead of 'silu'"),
        ("config.json", {"rope_parameters": {"rope_theta": 500000.0} | LLAMA3_SCALING}, "has rope_parameters"),
        ("config.json", {"torch_dtype": "float16"}, "has dtype 'float16' instead of 'bfloat16'"),
        ("config.json", {"quantization_config": None}, "not on record in both"),
        ("hf_quant_config.json", {"quantization": {"quant_algo": "NVFP4"}}, "has quant_algo 'NVFP4' instead of 'FP8'"),
        ("hf_quant_config.json", {"quantization": None}, "not on record in both"),
    ],
)
def test_wrong_settings_are_refused(
    tmp_path: Path, sources: dict[str, Checkpoint], file: str, changes: dict[str, Any], complaint: str
) -> None:
    folder = _exported(tmp_path, sources["llama"])
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | changes))

    with pytest.raises(VerificationError, match=complaint):
        check_hf_checkpoint(folder, sources["llama"], FP8, FP8_KV)


def test_an_export_without_its_tokenizer_or_cut_short_is_refused(
    tmp_path: Path, sources: dict[str, Checkpoint]
) -> None:
    folder = _exported(tmp_path, sources["llama"])
    (folder / "tokenizer.json").unlink()

    with pytest.raises(VerificationError, match=r"tokenizer\.json is missing"):
        check_hf_checkpoint(folder, sources["llama"], FP8, FP8_KV)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(VerificationError, match="truncated or not safetensors"):
        check_hf_checkpoint(folder, sources["llama"], FP8, FP8_KV)


def test_a_checkpoint_that_is_served_unchanged_is_compared_too(tmp_path: Path, sources: dict[str, Checkpoint]) -> None:
    source = sources["nemotron_h"]
    shutil.copytree(source.path, tmp_path / "copy")
    bf16 = PRECISIONS.find("bf16", "pytorch")

    assert "32 tensors are the source's" in check_hf_checkpoint(
        tmp_path / "copy", source, bf16, PRECISIONS.find_kv("bf16")
    )
    write_hybrid_checkpoint(tmp_path / "other", source.path, seed=1)
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "copy")
    with pytest.raises(VerificationError, match="is not the source's"):
        check_hf_checkpoint(tmp_path / "copy", source, bf16, PRECISIONS.find_kv("bf16"))


def test_nvfp4_is_two_codes_a_byte_times_two_scales() -> None:
    # Sixteen codes of E2M1 in order, as eight bytes; the layout is that of ModelOpt's NVFP4QTensor.
    codes = np.array([[low | (low + 1) << 4 for low in range(0, 16, 2)]], np.uint8)
    tensors = {
        "p.weight": codes,
        "p.weight_scale": np.array([[2.0]], ml_dtypes.float8_e4m3fn),
        "p.weight_scale_2": np.array(0.5, np.float32),
    }

    values = HF_LAYOUTS["NVFP4"].values(tensors, "p.weight", np.array([0]))

    half = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert relative_distance(values, np.array([[*half, *(-value for value in half)]])) == 0


def _exported(folder: Path, source: Checkpoint) -> Path:
    write_fp8_export(folder / "export", source)
    complete_export(folder / "export", source)
    return folder / "export"
