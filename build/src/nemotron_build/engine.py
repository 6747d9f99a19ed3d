"""Checkpoint to engine bundle: decide everything first (`plan`), then do it (`build`).

Builds for `cpu` only so far; other GPUs are refused with what is possible.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from dataclasses import dataclass
from pathlib import Path

from nemotron_build.checkpoint import TOKENIZER_FILES, Checkpoint, inspect
from nemotron_build.errors import BuildError, OutputError, UnsupportedError
from nemotron_build.gguf_file import PRECISIONS, write_gguf
from nemotron_build.templates import read_template
from nemotron_triton.bundle import CHAT_TEMPLATE, MANIFEST, Manifest, Memory, digest
from nemotron_triton.chat.profiles import DEFAULT_PROFILE, Profile, profile
from nemotron_triton.publish import publish

GPUS = ("cpu",)
DEFAULT_PRECISION = "int8-wo"
# Every slot's cache is allocated at the start, so a 128k default would ask for gigabytes nobody uses.
_DEFAULT_MAX_SEQ_LEN = 8192
_ENGINE_FILE = "engine/model.gguf"
_KV_BYTES_PER_VALUE = 2  # llama.cpp's default KV cache is fp16


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """Everything a user decides about a build."""

    checkpoint: Path
    gpu: str
    precision: str = "auto"
    profile: str = DEFAULT_PROFILE
    max_seq_len: int | None = None
    max_batch_size: int = 8
    chat_template: Path | None = None

    def __post_init__(self) -> None:
        """Reject what could only fail later."""
        if self.gpu not in GPUS:
            raise UnsupportedError(f"--gpu {self.gpu} is not supported yet; known: {', '.join(GPUS)}")
        if self.precision not in ("auto", *PRECISIONS):
            raise UnsupportedError(
                f"--precision {self.precision} does not exist for cpu; known: auto, {', '.join(PRECISIONS)}"
            )
        if self.max_batch_size < 1:
            raise BuildError(f"--max-batch-size is {self.max_batch_size}; at least 1 request must run")
        if self.max_seq_len is not None and self.max_seq_len < 16:
            raise BuildError(f"--max-seq-len is {self.max_seq_len}; no prompt fits, give at least 16")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a build will make: decided from the checkpoint's headers alone."""

    checkpoint: Checkpoint
    profile: Profile
    precision: str
    max_seq_len: int
    max_batch_size: int
    chat_template: str | None

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in every layer, bytes."""
        return self.checkpoint.architecture.kv_values_per_token * _KV_BYTES_PER_VALUE

    @property
    def kv_cache_bytes(self) -> int:
        """The cache for every request at full length, which llama.cpp allocates at the start."""
        return self.kv_bytes_per_token * self.max_seq_len * self.max_batch_size


class Reporter:
    """Hears what a build is doing; this one does not listen."""

    def stage(self, name: str) -> None:
        """The build enters the stage *name*."""

    def progress(self, done: int, total: int) -> None:
        """*done* of *total* steps of the stage are finished."""


def plan(spec: EngineSpec) -> Plan:
    """Inspect the checkpoint and settle every open choice; writes nothing."""
    checkpoint = inspect(spec.checkpoint)
    architecture = checkpoint.architecture
    max_seq_len = spec.max_seq_len or min(architecture.max_position_embeddings, _DEFAULT_MAX_SEQ_LEN)
    if max_seq_len > architecture.max_position_embeddings:
        raise BuildError(
            f"--max-seq-len is {max_seq_len}; the checkpoint goes up to {architecture.max_position_embeddings}"
        )
    return Plan(
        checkpoint=checkpoint,
        profile=profile(spec.profile),
        precision=DEFAULT_PRECISION if spec.precision == "auto" else spec.precision,
        max_seq_len=max_seq_len,
        max_batch_size=spec.max_batch_size,
        chat_template=read_template(spec.chat_template) if spec.chat_template else None,
    )


def build(spec: EngineSpec, output: Path, *, reporter: Reporter | None = None) -> Manifest:
    """Build the bundle of *spec* at *output*, which must not exist; all of it or nothing."""
    reporter = reporter or Reporter()
    reporter.stage("inspect")
    planned = plan(spec)
    with publish(output, OutputError) as folder:
        reporter.stage("convert")
        (folder / _ENGINE_FILE).parent.mkdir()
        write_gguf(
            planned.checkpoint,
            planned.precision,
            folder / _ENGINE_FILE,
            name=planned.profile.name,
            progress=reporter.progress,
        )
        tokenizer = folder / "tokenizer"
        tokenizer.mkdir()
        for name in TOKENIZER_FILES:
            if (source := planned.checkpoint.path / name).is_file():
                shutil.copyfile(source, tokenizer / name)
        if planned.chat_template is not None:
            (folder / CHAT_TEMPLATE).write_text(planned.chat_template, encoding="utf-8")
        reporter.stage("package")
        manifest = _manifest(planned, folder)
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _manifest(planned: Plan, folder: Path) -> Manifest:
    checkpoint = planned.checkpoint
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return Manifest(
        profile=planned.profile.name,
        gpu="cpu",
        sm=None,
        kind="cpu",
        precision=planned.precision,
        kv_precision="fp16",
        engine_file=_ENGINE_FILE,
        end_ids=list(checkpoint.end_ids),
        max_seq_len=planned.max_seq_len,
        max_batch_size=planned.max_batch_size,
        memory=Memory(
            weights_bytes=(folder / _ENGINE_FILE).stat().st_size,
            kv_bytes_per_token=planned.kv_bytes_per_token,
            kv_cache_bytes=planned.kv_cache_bytes,
        ),
        ran_on_this_hardware=True,
        profile_differences=[
            *checkpoint.architecture.differences(planned.profile.architecture),
            *checkpoint.token_differences(planned.profile.control_tokens),
        ],
        tool_versions={name: importlib.metadata.version(name) for name in ("nemotron-triton", "gguf", "safetensors")},
        inputs={path.name: digest(path) for path in checkpoint.files},
        outputs={path.relative_to(folder).as_posix(): digest(path) for path in files},
    )
