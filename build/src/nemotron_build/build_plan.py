"""A build decided before anything is written, from the checkpoint's headers, the GPU's entry and the rules."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_build.architecture import MODEL_TYPES
from nemotron_build.checkpoint import Checkpoint, inspect
from nemotron_build.planning.decision import Decision, decide
from nemotron_build.planning.gpus import Gpu, find_gpu
from nemotron_build.planning.planner import MemoryPlan, plan
from nemotron_build.precisions import PRECISIONS, Precisions
from nemotron_build.quantization.conversations import (
    CALIBRATION,
    HELD_OUT,
    Sample,
    count_samples,
    read_samples,
    to_calibrate,
    to_measure,
)
from nemotron_build.spec import EngineSpec, make_spec
from nemotron_build.templates import read_template
from nemotron_triton.bundle import CHAT_TEMPLATE, Bundle
from nemotron_triton.chat.profiles import Profile, profile
from nemotron_triton.errors import BundleError


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """What a build will make. `memory` is the plan for the asked lengths, which need not fit."""

    spec: EngineSpec
    checkpoint: Checkpoint
    profile: Profile
    gpu: Gpu
    decision: Decision
    memory: MemoryPlan
    chat_template: str | None

    @property
    def dtype(self) -> str:
        """What is not quantised is computed in: fp16 or bf16."""
        if self.decision.precision.dtype == "fp16" or self.decision.kind == "edge":
            return "fp16"
        return "bf16"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is unverified, and what a user would not expect."""
        settings = self.memory.settings
        if settings.max_input_len == settings.max_seq_len - 1:
            return self.decision.warnings
        limited = (
            f"prompts are limited to {settings.max_input_len} tokens, though answers may take a request to "
            f"{settings.max_seq_len}: this engine reads a prompt in one step"
        )
        return (*self.decision.warnings, limited)

    @property
    def config(self) -> dict[str, Any]:
        """Every setting as it was resolved, as JSON values; what the manifest keeps."""
        values = {field.name: getattr(self.spec, field.name) for field in dataclasses.fields(self.spec)}
        resolved: dict[str, Any] = {
            "gpu": self.gpu.name,
            "precision": self.decision.precision.name,
            "kv_precision": self.decision.kv_precision,
            "engine_kind": self.decision.kind,
            "model": self.profile.name,
            "max_seq_len": self.memory.settings.max_seq_len,
        }
        return {name: str(value) if isinstance(value, Path) else value for name, value in (values | resolved).items()}

    @functools.cached_property
    def calibration(self) -> list[list[int]]:
        """Token ids that ModelOpt calibrates on."""
        return to_calibrate(self._samples(self.spec.calibration or CALIBRATION, self.spec.calibration_samples))

    @property
    def calibration_count(self) -> int:
        """How many conversations that is, without reading what is in them."""
        return min(self.spec.calibration_samples, count_samples(self.spec.calibration or CALIBRATION))

    @functools.cached_property
    def held_out(self) -> list[list[list[int]]]:
        """Prompts and answers, as token ids, that quality is measured on."""
        return to_measure(self._samples(self.spec.quality_data or HELD_OUT, self.spec.quality_samples))

    def _samples(self, path: Path, count: int) -> list[Sample]:
        return read_samples(path, self.profile, self.checkpoint.tokenizer, max_samples=count)


def make_plan(spec: EngineSpec, *, query_rows: int | None = None, precisions: Precisions = PRECISIONS) -> BuildPlan:
    """Inspect the checkpoint's headers and settle every open choice; writes nothing.

    *query_rows* is for a checkpoint whose weights are not there any more (see `inspect`), *precisions* the table.
    `RefusedError` for a combination that does not exist, with the nearest that does.
    """
    for samples in (spec.calibration, spec.quality_data):
        if samples:
            count_samples(samples)  # Whether it can be read at all is said before the weights are.
    gpu = find_gpu(spec.gpu)
    checkpoint = inspect(spec.checkpoint, **_made_of(gpu), query_rows=query_rows)
    architecture = checkpoint.architecture
    decision = decide(
        gpu,
        architecture,
        precision=spec.precision,
        kv_precision=spec.kv_precision,
        kind=spec.engine_kind,
        precisions=precisions,
    )
    memory = plan(
        gpu,
        architecture,
        decision,
        max_seq_len=spec.max_seq_len,
        concurrency=spec.max_batch_size,
    )
    return BuildPlan(
        spec=spec,
        checkpoint=checkpoint,
        profile=profile(spec.model),
        gpu=gpu,
        decision=decision,
        memory=memory,
        chat_template=read_template(spec.chat_template) if spec.chat_template else None,
    )


def resumed_plan(bundle: Bundle, image: str | None) -> BuildPlan:
    """The plan of an unfinished *bundle*, from its manifest and what it carries: no weights that nobody will read."""
    manifest = bundle.manifest
    architecture = manifest.plan.get("architecture")
    if not isinstance(architecture, dict) or not all(
        isinstance(architecture.get(name), int) for name in ("num_attention_heads", "head_dim")
    ):
        raise BundleError(f"the manifest of {bundle.path} has no architecture in its plan; build the bundle again")
    values = {field.name: manifest.config.get(field.name) for field in dataclasses.fields(EngineSpec)}
    for name in ("calibration", "quality_data"):
        values[name] = bundle.path / "resume" / f"{name}.jsonl" if values[name] else None
    values["chat_template"] = bundle.path / CHAT_TEMPLATE if values["chat_template"] else None
    values["checkpoint"] = bundle.path / "source"
    values["image"] = image
    weights = any(name.startswith("source/") and name.endswith(".safetensors") for name in manifest.outputs)
    rows = architecture["num_attention_heads"] * architecture["head_dim"]
    return make_plan(make_spec(values), query_rows=None if weights else rows)


def _made_of(gpu: Gpu) -> dict[str, Any]:
    """What `inspect` takes: the CPU engine runs Llama only, and its weights are looked at only then."""
    model_types: Sequence[str] = ("llama",) if gpu.sm is None else MODEL_TYPES
    return {"model_types": model_types, "purpose": "cpu engines" if gpu.sm is None else "engines"}
