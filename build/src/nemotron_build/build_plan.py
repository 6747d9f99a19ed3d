"""A build decided before anything is written, from the checkpoint's headers, the GPU's entry and the rules."""

from __future__ import annotations

import dataclasses

from nemotron_build.architecture import MODEL_TYPES
from nemotron_build.checkpoint import inspect
from nemotron_build.choice import kinds_on
from nemotron_build.planning.gpus import find_gpu
from nemotron_build.precisions import PRECISIONS, Precisions
from nemotron_build.quantization.conversations import count_samples
from nemotron_build.request import PlanRequest
from nemotron_build.spec import EngineSpec, make_spec
from nemotron_build.stages.plan import BuildPlan
from nemotron_build.templates import read_template
from nemotron_triton.bundle import CHAT_TEMPLATE, Bundle
from nemotron_triton.chat.profiles import profile
from nemotron_triton.errors import BundleError


def make_plan(spec: EngineSpec, *, query_rows: int | None = None, precisions: Precisions = PRECISIONS) -> BuildPlan:
    """Inspect the checkpoint's headers and settle every open choice; writes nothing.

    *query_rows* is for a checkpoint whose weights are not there any more (see `inspect`), *precisions* the table.
    `RefusedError` for a combination that does not exist, with the nearest that does.
    """
    for samples in (spec.calibration, spec.quality_data):
        if samples:
            count_samples(samples)  # Whether it can be read at all is said before the weights are.
    gpu = find_gpu(spec.gpu)
    kinds = kinds_on(gpu)
    checkpoint = inspect(
        spec.checkpoint,
        model_types=[name for name in MODEL_TYPES if any(name in kind.model_types for kind in kinds)],
        purpose=f"{' or '.join(kind.name for kind in kinds)} engines",
        query_rows=query_rows,
    )
    request = PlanRequest(
        gpu=gpu,
        architecture=checkpoint.architecture,
        precision=spec.precision,
        kv_precision=spec.kv_precision,
        kind=spec.engine_kind,
        precisions=precisions,
        max_seq_len=spec.max_seq_len,
        concurrency=spec.max_batch_size,
    )
    return BuildPlan(
        spec=spec,
        checkpoint=checkpoint,
        profile=profile(spec.model),
        memory=request.answer(),
        chat_template=read_template(spec.chat_template) if spec.chat_template else None,
    )


def resumed_plan(bundle: Bundle, image: str | None) -> BuildPlan:
    """The plan of an unfinished *bundle*, from its manifest and its files, which need not include the weights."""
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
