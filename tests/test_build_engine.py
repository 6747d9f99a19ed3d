"""Bundles compute what their checkpoints do; a broken checkpoint is one clear line."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from checkpoints import architecture_of, logits, write_checkpoint, write_sparse_checkpoint
from nemotron_build.checkpoint import inspect
from nemotron_build.engine import EngineSpec, build
from nemotron_build.errors import CheckpointError
from nemotron_build.precisions import PRECISIONS
from nemotron_cli import main
from nemotron_triton.bundle import Bundle, digest
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.engine.start import start_engine
from nemotron_triton.engine.stream import TokenStream
from patience import wait_until

LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        # As in the Nano 4B: heads x head_dim is not hidden_size, so dividing would be wrong.
        {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64},
        {"tie_word_embeddings": False, "num_hidden_layers": 2},
        {"rope_scaling": LLAMA3_SCALING, "rope_theta": 500000.0},
    ],
    ids=["demo", "head_dim", "untied", "llama3-rope"],
)
def test_the_engine_computes_what_the_checkpoint_says(
    tmp_path: Path, checkpoint: Path, changes: dict[str, Any]
) -> None:
    weights = write_checkpoint(tmp_path / "checkpoint", checkpoint, **changes)
    architecture = architecture_of(json.loads((tmp_path / "checkpoint" / "config.json").read_text()))
    build(EngineSpec(checkpoint=tmp_path / "checkpoint", gpu="cpu", precision="bf16"), tmp_path / "bundle")
    codec = TokenCodec(checkpoint / "tokenizer.json")
    random = np.random.default_rng(1)
    prompts = [random.integers(0, 1000, length).tolist() for length in (1, 2, 7, 20, 40, 100, 200, 300)]
    expected = [logits(architecture, weights, prompt) for prompt in prompts]

    tokens = asyncio.run(_next_tokens(Bundle.open(tmp_path / "bundle"), prompts))

    compared = 0
    for scores, token in zip(expected, tokens, strict=True):
        # llama.cpp does not give the id of a broken character.
        if codec.bytes_of(int(scores.argmax())).isascii():
            # bf16 arithmetic may swap near ties; a wrong rotation or head size is off by far more.
            assert scores[token] > scores.max() - 0.02 * (scores.max() - scores.mean())
            compared += 1
    assert compared >= 4


@pytest.mark.parametrize("precision", [row.name for row in PRECISIONS.weights.values() if row.gguf])
def test_every_precision_makes_a_bundle_on_record(tmp_path: Path, checkpoint: Path, precision: str) -> None:
    manifest = build(EngineSpec(checkpoint=checkpoint, gpu="cpu", precision=precision), tmp_path / "bundle").manifest

    assert Bundle.open(tmp_path / "bundle").manifest == manifest
    assert manifest.precision == precision
    assert manifest.inputs["model.safetensors"] == digest(checkpoint / "model.safetensors")
    written = {p.relative_to(tmp_path / "bundle").as_posix() for p in (tmp_path / "bundle").rglob("*") if p.is_file()}
    assert written == {*manifest.outputs, "manifest.json"}
    assert sorted(os.listdir(tmp_path)) == ["bundle", "bundle.build"]


def test_head_dim_is_read_from_the_weights_when_the_config_names_none(tmp_path: Path, checkpoint: Path) -> None:
    write_checkpoint(tmp_path / "c", checkpoint, hidden_size=128, num_attention_heads=4, head_dim=64)
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    del config["head_dim"]
    (tmp_path / "c" / "config.json").write_text(json.dumps(config))

    manifest = build(EngineSpec(checkpoint=tmp_path / "c", gpu="cpu", precision="bf16"), tmp_path / "bundle").manifest

    assert "head_dim 64 instead of 128" in manifest.profile_differences


def _edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return edit


def _truncate(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1_000_000)


def _no_end_token(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": null}')
    _edit_config(eos_token_id=None)(folder)


def _two_sources(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    shutil.copyfile(folder / "a.safetensors", folder / "b.safetensors")


def _other_index(folder: Path) -> None:
    shutil.copyfile(folder / "model.safetensors", folder / "other.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "other.safetensors"}}')


def _odd_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": ["model.safetensors"]}}')


def _pipe(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (shutil.rmtree, "no checkpoint at"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "config.json cannot be read as JSON"),
        (_truncate, "model.safetensors is truncated"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64), "model.safetensors is truncated"),
        (_pickle, "pytorch_model.bin is a pickle, which is never loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"has no \*.safetensors"),
        (_two_sources, r"embed_tokens.weight is in a.safetensors and in b.safetensors; which one is meant"),
        (_other_index, "has model.safetensors and an index of other files; remove the one that is not meant"),
        (_odd_index, "has no weight_map of tensors to files"),
        (_pipe, "model.safetensors is no regular file"),
        (_edit_config(num_hidden_layers=10**12), "num_hidden_layers is 1000000000000, more than any model has"),
        (_edit_config(rms_norm_eps=float("nan")), "rms_norm_eps must be a positive number, got nan"),
        (_edit_config(rope_theta=10**400), "rope_theta must be a positive number, got 1000"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json is not a tokenizer"),
        (_edit_config(model_type="nemotron_h"), "model_type 'nemotron_h'; cpu engines are made from: llama"),
        (_edit_config(model_type="gpt2"), "model_type 'gpt2'"),
        (_edit_config(head_dim=32), r"q_proj.weight has shape \[192, 192\], config.json implies \[96, 192\]"),
        (_edit_config(num_hidden_layers=5), "the weights lack model.layers.4"),
        (_edit_config(hidden_size="wide"), "hidden_size must be a positive integer, got 'wide'"),
        (_edit_config(rope_scaling={"rope_type": "yarn"}), "rope scaling 'yarn'; supported: llama3"),
        (_edit_config(rope_scaling="x"), "the rope settings must be an object, got 'x'"),
        (_edit_config(attention_bias=True), "biases are not supported"),
        (_edit_config(num_attention_heads=4, num_key_value_heads=3), "4 heads cannot share 3 key-value heads"),
        (_edit_config(head_dim=63), "head_dim is 63; rotary embeddings turn pairs"),
        (_edit_config(vocab_size=1000), "embed_tokens.weight has shape"),
        (_no_end_token, "names no eos_token_id"),
        (_edit_config(bos_token_id=99999), "bos_token_id names 99999"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": []}'),
            "has no weight_map",
        ),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "b.safetensors"}}'
            ),
            "lacks b.safetensors, which model.safetensors.index.json lists",
        ),
    ],
)
def test_broken_checkpoints_are_one_clear_line(
    tmp_path: Path, checkpoint: Path, damage: Callable[[Path], object], complaint: str
) -> None:
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    damage(tmp_path / "checkpoint")

    result = _build(tmp_path)

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert re.search(complaint, result.stderr), result.stderr
    assert not (tmp_path / "bundle").exists()
    assert [name for name in os.listdir(tmp_path) if name != "checkpoint"] == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--gpu", "h1000"], "--gpu h1000 is not known; did you mean h100? known: auto, a10g"),
        (["--precision", "fp3"], "--precision fp3 does not exist; known: auto, bf16"),
        (["--model", "gpt-2"], "no model profile named 'gpt-2'"),
        (["--max-seq-len", "999999"], "--max-seq-len is 999999; the model goes up to 2048"),
        (["--max-seq-len", "0"], "--max-seq-len is 0"),
        (["--max-batch-size", "0"], "--max-batch-size is 0"),
    ],
)
def test_wrong_flags_are_one_clear_line(tmp_path: Path, checkpoint: Path, arguments: list[str], complaint: str) -> None:
    (tmp_path / "checkpoint").symlink_to(checkpoint)

    result = _build(tmp_path, *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert complaint in result.stderr


def test_an_existing_output_is_never_touched(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "checkpoint").symlink_to(checkpoint)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine").write_text("precious")

    result = _build(tmp_path)

    assert result.exit_code == 1
    assert "bundle exists; remove it or give another --output" in result.stderr
    assert (tmp_path / "bundle" / "mine").read_text() == "precious"


def test_json_is_one_document_on_stdout(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "checkpoint").symlink_to(checkpoint)

    result = _build(tmp_path, "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["kind"] == "cpu"
    assert "convert" in result.stderr


def test_a_full_disk_is_one_clear_line_and_leaves_nothing_half_written(tmp_path: Path, checkpoint: Path) -> None:
    command = [sys.executable, "-m", "nemotron_cli", "build-engine", str(checkpoint), "--gpu", "cpu"]
    limited = ["sh", "-c", 'ulimit -f 500; exec "$@"', "sh", *command, "--output", str(tmp_path / "bundle")]

    result = subprocess.run(limited, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 1
    assert re.search(r"^Error: convert cannot write in \S+bundle.build: ", result.stderr, re.MULTILINE), result.stderr
    assert "Traceback" not in result.stderr
    assert os.listdir(tmp_path) == ["bundle.build"]
    assert sorted(os.listdir(tmp_path / "bundle.build")) == ["inspect.json", "lock", "logs"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_build_leaves_nothing_half_written(
    tmp_path: Path, checkpoint: Path, number: signal.Signals
) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    size = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8}
    write_sparse_checkpoint(tmp_path / "big", checkpoint, config | size)
    command = [sys.executable, "-m", "nemotron_cli", "build-engine", str(tmp_path / "big"), "--gpu", "cpu"]
    process = subprocess.Popen(
        [*command, "--output", str(tmp_path / "out" / "bundle")],
        stderr=subprocess.PIPE,
        # A suite that a shell runs in the background ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_until(lambda: any(path.stat().st_size > 1_000_000 for path in (tmp_path / "out").rglob("model.gguf")))

    process.send_signal(number)
    process.communicate(timeout=20)

    assert process.returncode == 128 + number
    assert os.listdir(tmp_path / "out") == ["bundle.build"]
    assert sorted(os.listdir(tmp_path / "out" / "bundle.build")) == ["inspect.json", "lock", "logs"]


async def _next_tokens(bundle: Bundle, prompts: list[list[int]]) -> list[int]:
    engine = start_engine(bundle, TokenCodec(bundle.tokenizer_path))
    greedy = Sampling(max_tokens=1, temperature=0.0, top_p=1.0, ignore_end=True)
    try:
        tokens = []
        for prompt in prompts:
            stream = TokenStream()
            engine.generate(prompt, greedy, stream)
            tokens += [token async for chunk in stream for token in chunk.ids][:1]
        return tokens
    finally:
        engine.close()


def _build(folder: Path, *arguments: str) -> Any:
    command = ["build-engine", str(folder / "checkpoint"), "--gpu", "cpu", "--output", str(folder / "bundle")]
    return CliRunner().invoke(main, [*command, *arguments])


def test_a_template_of_ones_own_goes_into_the_bundle(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages[0].content }}")

    build(EngineSpec(checkpoint=checkpoint, gpu="cpu", chat_template=tmp_path / "own.jinja"), tmp_path / "bundle")

    bundle = Bundle.open(tmp_path / "bundle")
    bundle.verify()
    assert bundle.chat_template == "{{ messages[0].content }}"


def test_a_template_that_does_not_compile_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("one\n{% if %}")

    with pytest.raises(CheckpointError, match=r"own\.jinja is not a chat template: line 2"):
        build(EngineSpec(checkpoint=checkpoint, gpu="cpu", chat_template=tmp_path / "own.jinja"), tmp_path / "bundle")

    assert not (tmp_path / "bundle").exists()


def test_tokens_that_are_not_as_published_are_reported(checkpoint: Path) -> None:
    differences = inspect(checkpoint).token_differences({"<|eot_id|>": 128009, "<|im_end|>": 11})

    assert differences[0].startswith("token <|eot_id|> ")
    assert differences[1] == "no token <|im_end|>"
