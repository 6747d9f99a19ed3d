"""What a build will make: all that its stages are made from.

What renders conversations is imported late: planning needs none of it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nemotron_build.checkpoint import Checkpoint
from nemotron_build.planning.gpus import Gpu
from nemotron_build.planning.planner import MemoryPlan
from nemotron_build.planning.rules import Decision
from nemotron_build.spec import EngineSpec
from nemotron_triton.chat.profiles import Profile


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """What a build will make. `memory` is the plan for the asked lengths, which need not fit."""

    spec: EngineSpec
    checkpoint: Checkpoint
    profile: Profile
    memory: MemoryPlan
    chat_template: str | None

    @property
    def gpu(self) -> Gpu:
        """What it is made for."""
        return self.memory.gpu

    @property
    def decision(self) -> Decision:
        """Engine kind, precision and KV precision."""
        return self.memory.decision

    @property
    def dtype(self) -> Literal["bf16", "fp16"]:
        """What is not quantised is computed in."""
        return self.decision.kind.computes_in(self.decision.precision)

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
        resolved: dict[str, Any] = {
            "gpu": self.gpu.name,
            "precision": self.decision.precision.name,
            "kv_precision": self.decision.kv_precision,
            "engine_kind": self.decision.kind.name,
            "model": self.profile.name,
            "max_seq_len": self.memory.settings.max_seq_len,
        }
        values = vars(self.spec) | resolved
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    @functools.cached_property
    def calibration(self) -> list[list[int]]:
        """Token ids that ModelOpt calibrates on."""
        from nemotron_build.quantization.conversations import CALIBRATION, read_samples, to_calibrate

        path, count = self.spec.calibration or CALIBRATION, self.spec.calibration_samples
        return to_calibrate(read_samples(path, self.profile, self.checkpoint.tokenizer, max_samples=count))

    @property
    def calibration_count(self) -> int:
        """How many conversations that is, without reading what is in them."""
        from nemotron_build.quantization.conversations import CALIBRATION, count_samples

        return min(self.spec.calibration_samples, count_samples(self.spec.calibration or CALIBRATION))

    @functools.cached_property
    def held_out(self) -> list[list[list[int]]]:
        """Prompts and answers, as token ids, that quality is measured on."""
        from nemotron_build.quantization.conversations import HELD_OUT, read_samples, to_measure

        path, count = self.spec.quality_data or HELD_OUT, self.spec.quality_samples
        return to_measure(read_samples(path, self.profile, self.checkpoint.tokenizer, max_samples=count))
