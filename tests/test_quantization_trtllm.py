"""The real ModelOpt quantises and exports; what it wrote is verified, finished by a stand-in compiler, and resumed.

    ci/test-quantization

The checkpoint is small and random, with what exporters get wrong: heads x head_dim is not hidden_size, llama3 rope
scaling, dimensions that blocks of 128 divide.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from checkpoints import write_checkpoint
from contract import BUILD as TRTLLM_BUILD
from contract import check_argv
from nemotron_build.checkpoint import inspect
from nemotron_build.engine import Built, EngineSpec, Reporter, build, resume
from nemotron_build.errors import ToolError, VerificationError
from nemotron_build.host import Host
from nemotron_build.precisions import PRECISIONS
from nemotron_build.processes import run
from nemotron_build.verification.tensors import read_tensors
from nemotron_build.verification.trtllm_checkpoint import check_trtllm_checkpoint
from nemotron_triton.bundle import Bundle, digest
from reporters import Heard

pytestmark = pytest.mark.quantization

LAPTOP = Host()
GPU_HOST = Host(sms=(90,), gpu_titles=("NVIDIA H100 80GB HBM3 (SM90)",), tensorrt_llm="1.2.1")
BUILDS = [
    ("bf16", "bf16"),
    ("fp8", "fp8"),
    ("int8-sq", "int8"),
    ("int4-awq", "bf16"),
    ("w4a8-awq", "fp8"),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The checkpoint that is quantised."""
    folder = tmp_path_factory.mktemp("source") / "checkpoint"
    write_checkpoint(
        folder,
        checkpoint,
        hidden_size=256,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=128,
        intermediate_size=512,
        num_hidden_layers=2,
        tie_word_embeddings=False,
        rope_theta=500000.0,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
    )
    return folder


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Callable[[str, str], Path]:
    """Builds, once, the bundle of a precision on a machine without a GPU, with its workspace beside it."""
    folder = tmp_path_factory.mktemp("bundles")

    def build_once(precision: str, kv_precision: str) -> Path:
        output = folder / f"{precision}-{kv_precision}"
        if not output.exists():
            build(spec(source, precision, kv_precision), output, host=LAPTOP)
        return output

    return build_once


def spec(source: Path, precision: str, kv_precision: str = "auto") -> EngineSpec:
    return EngineSpec(
        checkpoint=source,
        gpu="h100",
        precision=precision,
        kv_precision=kv_precision,
        max_seq_len=1024,
        calibration_samples=4,
        quality_samples=2,
        device="cpu",
    )


def compiler(**changes: Any) -> Callable[..., None]:
    """A runner with a stand-in for `trtllm-build` that accepts only what the real one accepts."""

    def runner(argv: Sequence[str], log: Path, **settings: Any) -> None:
        if argv[0] != "trtllm-build":
            run(argv, log, **settings)
            return
        flags = check_argv(argv, "trtllm-build", TRTLLM_BUILD["flags"])
        pretrained = json.loads((Path(flags["--checkpoint_dir"]) / "config.json").read_text())
        limits = {name: int(flags[f"--{name}"]) for name in ("max_batch_size", "max_seq_len", "max_num_tokens")}
        config = {
            "version": "1.2.1",
            "pretrained_config": pretrained,
            "build_config": {**limits, "kv_cache_type": flags["--kv_cache_type"].upper(), **changes},
        }
        engine = Path(flags["--output_dir"])
        engine.mkdir()
        (engine / "config.json").write_text(json.dumps(config))
        (engine / "rank0.engine").write_bytes(b"compiled from " + digest_of_weights(flags["--checkpoint_dir"]))

    return runner


def digest_of_weights(folder: str) -> bytes:
    return digest(Path(folder) / "rank0.safetensors").encode()


@pytest.mark.parametrize(("precision", "kv_precision"), BUILDS)
def test_modelopt_exports_what_was_asked_for(
    bundles: Callable[[str, str], Path], source: Path, precision: str, kv_precision: str
) -> None:
    bundle = Bundle.open(bundles(precision, kv_precision))

    manifest = bundle.manifest
    assert (manifest.state, manifest.next_stage) == ("unfinished", "compile")
    assert any("head size 128" in check for check in manifest.checks)
    row, kv = PRECISIONS.find(precision, "tensorrt"), PRECISIONS.find_kv(kv_precision)
    checked = check_trtllm_checkpoint(bundle.path / "resume/convert/checkpoint", inspect(source), row, kv)
    assert checked == manifest.checks
    bundle.verify()
    if precision == "bf16":
        assert manifest.quality is None
    else:
        assert manifest.quality is not None
        assert manifest.quality.tokens > 0
        assert manifest.quality.kl_divergence_nats >= 0


def test_tied_embeddings_are_exported_too(tmp_path: Path, checkpoint: Path) -> None:
    # The demo checkpoint: its head is its embedding, which ModelOpt writes twice.
    built = build(spec(checkpoint, "fp8", "fp8"), tmp_path / "bundle", host=LAPTOP)

    assert built.manifest.next_stage == "compile"
    assert any("lm_head are the source's" in check for check in built.manifest.checks)


def _zero_a_scale(folder: Path) -> None:
    _edit(folder, "transformer.layers.1.mlp.proj.weights_scaling_factor", lambda values: values * 0)


def _infinite_scale(folder: Path) -> None:
    _edit(folder, "transformer.layers.0.attention.qkv.activation_scaling_factor", lambda values: values + np.inf)


def _halve_a_scale(folder: Path) -> None:
    _edit(folder, "transformer.layers.0.mlp.fc.weights_scaling_factor", lambda values: values / 2)


def _swap_halves(folder: Path) -> None:
    _edit(folder, "transformer.layers.0.attention.qkv.weight", lambda values: np.roll(values, len(values) // 2, axis=0))


def _other_embedding(folder: Path) -> None:
    _edit(folder, "transformer.vocab_embedding.weight", lambda values: np.roll(values, 1, axis=0))


def _edit(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    file = folder / "rank0.safetensors"
    values = read_tensors(file)[name]
    changed = np.asarray(change(np.array(values)), dtype=values.dtype)
    data = bytearray(file.read_bytes())
    length = int.from_bytes(data[:8], "little")
    start, end = json.loads(data[8 : 8 + length])[name]["data_offsets"]
    data[8 + length + start : 8 + length + end] = changed.tobytes()
    file.write_bytes(data)


def _config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return edit


def _truncate(folder: Path) -> None:
    with (folder / "rank0.safetensors").open("r+b") as file:
        file.truncate(100_000)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_zero_a_scale, "layers.1.mlp.proj.weights_scaling_factor holds 0.0, and a scale is finite and positive"),
        (_infinite_scale, "qkv.activation_scaling_factor holds inf"),
        (_halve_a_scale, "layers.0.mlp.fc.weight is 50% off the source's model.layers.0.mlp.gate_proj.weight"),
        (_swap_halves, "off the source's model.layers.0.self_attn.q_proj.weight"),
        (_other_embedding, "vocab_embedding.weight is not the source's model.embed_tokens.weight"),
        # What ModelOpt 0.47 wrote: hidden_size / heads.
        (_config(head_size=64), "head_size 64 instead of 128"),
        (_config(rotary_scaling=None), "rotary_scaling.factor None instead of 8.0"),
        (_config(num_hidden_layers=3), "num_hidden_layers 3 instead of 2"),
        (_config(vocab_size=1), "vocab_size 1 instead of 1536"),
        (_config(quantization={"quant_algo": "W4A16_AWQ"}), "quant_algo 'W4A16_AWQ' instead of 'FP8'"),
        (_config(quantization={"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}), "does not exclude lm_head"),
        (_truncate, "truncated or not safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("[]"), "must hold a JSON object"),
    ],
)
def test_a_corrupted_export_is_caught(
    tmp_path: Path,
    bundles: Callable[[str, str], Path],
    source: Path,
    damage: Callable[[Path], None],
    complaint: str,
) -> None:
    folder = Path(shutil.copytree(bundles("fp8", "fp8") / "resume/convert/checkpoint", tmp_path / "checkpoint"))
    damage(folder)

    with pytest.raises(VerificationError, match="(?s)" + complaint.replace("(", r"\(")):
        check_trtllm_checkpoint(folder, inspect(source), PRECISIONS.find("fp8", "tensorrt"), PRECISIONS.find_kv("fp8"))


def test_an_unfinished_bundle_is_finished_on_the_gpu_host(
    tmp_path: Path, bundles: Callable[[str, str], Path], source: Path
) -> None:
    # As it was copied there: without the workspace, and without the source checkpoint.
    moved = Path(shutil.copytree(bundles("fp8", "fp8"), tmp_path / "bundle"))

    # And as if there had been a GPU from the beginning.
    shutil.copytree(bundles("fp8", "fp8").with_name("fp8-fp8.build"), tmp_path / "at-once.build")

    finished = resume(moved, host=GPU_HOST, runner=compiler())
    here = build(spec(source, "fp8", "fp8"), tmp_path / "at-once", host=GPU_HOST, runner=compiler())

    for built in (finished, here):
        assert built.blocked is None
        assert built.manifest.state == "complete"
        assert any("its limits are the plan's: 8 sequences of 1024 tokens" in check for check in built.manifest.checks)
        assert built.manifest.quality == finished.manifest.quality
        assert not built.manifest.ran_on_this_hardware
    Bundle.open(moved).verify()
    assert finished.manifest.outputs == here.manifest.outputs
    assert finished.manifest.build_key == Bundle.open(bundles("fp8", "fp8")).manifest.build_key


def test_a_changed_unfinished_bundle_is_not_finished(tmp_path: Path, bundles: Callable[[str, str], Path]) -> None:
    moved = Path(shutil.copytree(bundles("fp8", "fp8"), tmp_path / "bundle"))
    _halve_a_scale(moved / "resume/convert/checkpoint")

    with pytest.raises(Exception, match="was changed after the build"):
        resume(moved, host=GPU_HOST, runner=compiler())


def test_a_host_without_the_gpu_leaves_it_unfinished(tmp_path: Path, bundles: Callable[[str, str], Path]) -> None:
    moved = Path(shutil.copytree(bundles("fp8", "fp8"), tmp_path / "bundle"))
    before = (moved / "manifest.json").read_text()

    built = resume(moved, host=Host(sms=(89,), gpu_titles=("NVIDIA L40S (SM89)",), tensorrt_llm="1.2.1"))

    assert built.blocked is not None
    assert "is compiled on a GPU of SM 90, and this machine has NVIDIA L40S (SM89)" in built.blocked
    assert (moved / "manifest.json").read_text() == before


def test_an_engine_that_is_not_the_plan_s_is_refused(tmp_path: Path, bundles: Callable[[str, str], Path]) -> None:
    moved = Path(shutil.copytree(bundles("fp8", "fp8"), tmp_path / "bundle"))

    with pytest.raises(VerificationError, match="max_batch_size 2048 instead of 8"):
        resume(moved, host=GPU_HOST, runner=compiler(max_batch_size=2048))

    assert Bundle.open(moved).manifest.state == "unfinished"


def test_an_interrupted_compilation_is_gone_on_with(tmp_path: Path, bundles: Callable[[str, str], Path]) -> None:
    moved = Path(shutil.copytree(bundles("fp8", "fp8"), tmp_path / "bundle"))

    def interrupted(argv: Sequence[str], log: Path, **_: Any) -> None:
        compiler()(argv, log)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume(moved, host=GPU_HOST, runner=interrupted)
    left = Bundle.open(moved).manifest.state
    finished = resume(moved, host=GPU_HOST, runner=compiler())

    assert left == "unfinished"
    assert finished.manifest.state == "complete"
    assert not (tmp_path / "bundle.build" / "compile.partial").exists()


class Fatal(Reporter):
    """Kills its own process in the middle of *stage*."""

    def __init__(self, stage: str) -> None:
        self._wanted, self._now = stage, ""

    def stage(self, name: str) -> None:
        self._now = name

    def progress(self, done: int, total: int) -> None:  # noqa: ARG002 - the base's signature
        if self._now == self._wanted:
            os.kill(os.getpid(), signal.SIGKILL)


_KILLED = """
import sys
from pathlib import Path
from test_quantization_trtllm import Fatal, LAPTOP, spec
from nemotron_build.engine import build
build(spec(Path(sys.argv[1]), "int8-sq", "int8"), Path(sys.argv[2]), host=LAPTOP, reporter=Fatal(sys.argv[3]))
"""


@pytest.mark.parametrize("stage", ["quantize", "convert"])
def test_after_a_kill_in_modelopt_the_next_run_gives_the_same_bundle(
    tmp_path: Path, bundles: Callable[[str, str], Path], source: Path, stage: str
) -> None:
    undisturbed = bundles("int8-sq", "int8")
    output = tmp_path / "bundle"
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])

    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(source), str(output), stage],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
        capture_output=True,
        timeout=300,
    )
    _wait_until_nobody_writes(tmp_path)
    heard = Heard()
    built: Built = build(spec(source, "int8-sq", "int8"), output, host=LAPTOP, reporter=heard)

    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert ("quantize" in heard.stages) == (stage == "quantize")
    assert built.manifest.outputs == Bundle.open(undisturbed).manifest.outputs
    assert built.manifest.quality == Bundle.open(undisturbed).manifest.quality


def _wait_until_nobody_writes(folder: Path) -> None:
    """The worker of a killed build dies with it, but not in the same instant."""
    workers = [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(process.info["cmdline"] or [])
    ]
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


def test_other_lengths_quantise_nothing_anew(tmp_path: Path, bundles: Callable[[str, str], Path], source: Path) -> None:
    finished = bundles("fp8", "fp8")
    shutil.copytree(finished.with_name(f"{finished.name}.build"), tmp_path / "bundle.build")
    heard = Heard()
    changed = EngineSpec(**{**vars(spec(source, "fp8", "fp8")), "max_seq_len": 512})

    build(changed, tmp_path / "bundle", host=GPU_HOST, runner=compiler(), reporter=heard)

    assert heard.stages == ["inspect", "compile", "verify", "package"]


class _Evil:
    """Unpickling it creates the file *marker*."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._marker,))


def test_a_pickle_in_a_checkpoint_is_never_loaded(tmp_path: Path, source: Path) -> None:
    trapped = Path(shutil.copytree(source, tmp_path / "source"))
    (trapped / "modelopt_state.pth").write_bytes(pickle.dumps(_Evil(tmp_path / "it ran")))

    build(spec(trapped, "bf16"), tmp_path / "bundle", host=LAPTOP)

    assert not (tmp_path / "it ran").exists()
    assert not any((tmp_path / "bundle").rglob("*.pth"))


def test_a_model_that_modelopt_cannot_read_is_one_line(tmp_path: Path, source: Path) -> None:
    broken = Path(shutil.copytree(source, tmp_path / "source"))
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"hidden_act": "surprise"}))

    with pytest.raises(ToolError, match=r"^ModelOpt: KeyError: .*surprise.*; the whole log is .*quantize.log$"):
        build(spec(broken, "fp8"), tmp_path / "bundle", host=LAPTOP)

    assert sorted(os.listdir(tmp_path)) == ["bundle.build", "source"]
