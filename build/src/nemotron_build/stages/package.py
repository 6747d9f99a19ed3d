"""The last stage: the bundle, put together beside its place and moved there by one rename.

A bundle that a machine could not finish is packaged too: it carries what the remaining stages read, so that
`nemotron build-engine --resume` goes on with it where the GPU is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nemotron_build.checkpoint import TOKENIZER_FILES
from nemotron_build.errors import OutputError
from nemotron_build.host import Host
from nemotron_build.stages.kind import kind_of
from nemotron_build.stages.pipeline import Outcome
from nemotron_build.stages.plan import BuildPlan
from nemotron_build.stages.workspace import copy_file, digests_of, files_in, link_or_copy
from nemotron_triton.atomic import atomic_folder
from nemotron_triton.bundle import CHAT_TEMPLATE, MANIFEST, Manifest, Memory, Quality

SOURCE, RESUME = "source", "resume"


def package(
    plan: BuildPlan,
    outcome: Outcome,
    output: Path,
    *,
    host: Host,
    digests: Mapping[str, str],
    build_key: str,
    before: Manifest | None = None,
) -> Manifest:
    """Make the bundle at *output*, in the place of an earlier one.

    *before* is the manifest of the unfinished bundle that is resumed: what is on record there stays on record.
    `OutputError` when it cannot be written; then *output* is as it was.
    """
    try:
        with atomic_folder(output, partial=output.with_name(f".{output.name}.partial"), replace=True) as partial:
            built, copied = _files(plan, outcome)
            for name, path in built.items():
                link_or_copy(path, partial / name)
            for name, path in copied.items():
                copy_file(path, partial / name)
            if plan.chat_template is not None:
                (partial / CHAT_TEMPLATE).write_text(plan.chat_template, encoding="utf-8")
            manifest = _manifest(plan, outcome, partial, host=host, digests=digests, build_key=build_key)
            if before:
                manifest = replace(
                    manifest,
                    quality=manifest.quality or before.quality,
                    checks=[*before.checks, *(check for check in manifest.checks if check not in before.checks)],
                    stages=before.stages | manifest.stages,
                    config=before.config,
                )
            (partial / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    return manifest


def _files(plan: BuildPlan, outcome: Outcome) -> tuple[dict[str, Path], dict[str, Path]]:
    """What goes into the bundle, by its place there: files that stages made, and files of the user's."""
    checkpoint = plan.checkpoint
    copied = {f"tokenizer/{path.name}": path for path in checkpoint.files if path.name in TOKENIZER_FILES}
    copied |= {f"licence/{path.name}": path for path in checkpoint.licence_files}
    if not outcome.remaining:
        return kind_of(plan).engine_files(outcome.folders), copied
    reads_source = any(stage.reads_source for stage in outcome.remaining)
    sources = checkpoint.files if reads_source else checkpoint.files_beside_weights
    copied |= {f"{SOURCE}/{path.name}": path for path in sources}
    for name, samples in (("calibration", plan.spec.calibration), ("quality_data", plan.spec.quality_data)):
        if samples:
            copied[f"{RESUME}/{name}.jsonl"] = samples
    needs = {need for stage in outcome.remaining for need in stage.needs} & outcome.folders.keys()
    folders = {need: outcome.folders[need] for need in needs}
    built = {f"{RESUME}/{need}/{name}": folder / name for need, folder in folders.items() for name in files_in(folder)}
    return built, copied


def _manifest(
    plan: BuildPlan, outcome: Outcome, folder: Path, *, host: Host, digests: Mapping[str, str], build_key: str
) -> Manifest:
    kind, decision, memory = kind_of(plan), plan.decision, plan.memory
    engine = folder / kind.engine_file
    quality = outcome.recorded("quantize", "quality")
    checks = [check for stage in ("convert", "verify") for check in outcome.recorded(stage, "checks") or []]
    return Manifest(
        profile=plan.profile.name,
        gpu=plan.gpu.name,
        sm=plan.gpu.sm,
        requires_sm=kind.required_sm(plan.gpu.sm, decision.precision),
        kind=kind.name,
        precision=decision.precision.name,
        kv_precision=decision.kv_precision,
        engine_file=kind.engine_file,
        end_ids=list(plan.checkpoint.end_ids),
        max_seq_len=memory.settings.max_seq_len,
        max_batch_size=memory.settings.max_batch_size,
        max_num_tokens=memory.settings.max_num_tokens,
        memory=Memory(
            weights_bytes=engine.stat().st_size if engine.is_file() else memory.weights_bytes,
            kv_bytes_per_token=memory.kv_bytes_per_token,
            kv_cache_bytes=memory.kv_bytes_per_token * memory.settings.max_seq_len * memory.settings.max_batch_size,
            state_bytes_per_sequence=memory.state_bytes_per_sequence,
        ),
        ran_on_this_hardware=kind.ran_on_hardware,
        build_key=build_key,
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        state="unfinished" if outcome.remaining else "complete",
        next_stage=outcome.remaining[0].name if outcome.remaining else None,
        container=kind.container(plan, host),
        config=plan.config,
        plan=plan_record(plan),
        llm_args=kind.llm_arguments(plan),
        quality=Quality(**quality) if quality else None,
        checks=list(dict.fromkeys(checks)),
        warnings=list(plan.warnings),
        stages=dict(outcome.keys),
        profile_differences=[
            *plan.checkpoint.architecture.differences(plan.profile.architecture),
            *plan.checkpoint.token_differences(plan.profile.control_tokens),
        ],
        tool_versions=kind.tool_versions(host),
        inputs=dict(digests),
        outputs=digests_of(folder),
    )


def plan_record(plan: BuildPlan) -> dict[str, Any]:
    """The memory plan, the roofline and the architecture as JSON values."""
    memory = plan.memory
    record = {
        "architecture": {"model_type": plan.checkpoint.architecture.model_type} | asdict(plan.checkpoint.architecture),
        "fits": memory.fits,
        "reason": memory.reason,
        "parameters": memory.parameters,
        "max_seq_len": memory.max_seq_len,
        "max_concurrency": memory.max_concurrency,
        "memory": asdict(memory.memory),
        "settings": asdict(memory.settings),
        "roofline": asdict(memory.roofline) if memory.roofline else None,
        "why": list(plan.decision.why),
        "notes": list(plan.decision.notes),
    }
    return dict(json.loads(json.dumps(record)))
