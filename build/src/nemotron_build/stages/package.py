"""The last stage: the bundle, put together beside its place and moved there by one rename.

A bundle that a machine could not finish is packaged too: it carries what the remaining stages read, so that
`nemotron build-engine --resume` goes on with it where the GPU is.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nemotron_build.checkpoint import TOKENIZER_FILES
from nemotron_build.errors import OutputError
from nemotron_build.host import Host
from nemotron_build.stages.kind import kind_of
from nemotron_build.stages.pipeline import Outcome, Stage
from nemotron_build.stages.plan import BuildPlan
from nemotron_build.stages.verified import read_checks, read_quality
from nemotron_build.stages.workspace import copy_file, digests_of, link_or_copy
from nemotron_triton.atomic import atomic_folder
from nemotron_triton.bundle import CHAT_TEMPLATE, MANIFEST, Manifest, Memory, Quality

SOURCE, RESUME = "source", "resume"


def package(
    plan: BuildPlan,
    outcome: Outcome,
    remaining: list[Stage],
    output: Path,
    *,
    host: Host,
    digests: Mapping[str, str],
    build_key: str,
    before: Manifest | None = None,
) -> Manifest:
    """Make the bundle at *output*, in the place of an earlier one; *remaining* are the stages still to be done.

    *before* is the manifest of the unfinished bundle that was gone on with: what was found then stays on record.

    `OutputError` when it cannot be written; then *output* is as it was.
    """
    try:
        with atomic_folder(output, partial=output.with_name(f".{output.name}.partial"), replace=True) as partial:
            made, taken = _files(plan, outcome, remaining)
            for name, path in made.items():
                link_or_copy(path, partial / name)
            for name, path in taken.items():
                copy_file(path, partial / name)
            if plan.chat_template is not None:
                (partial / CHAT_TEMPLATE).write_text(plan.chat_template, encoding="utf-8")
            manifest = _manifest(plan, outcome, remaining, partial, host=host, digests=digests, build_key=build_key)
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


def _files(plan: BuildPlan, outcome: Outcome, remaining: list[Stage]) -> tuple[dict[str, Path], dict[str, Path]]:
    """What goes into the bundle, by its place there: files that stages made, and files of the user's."""
    checkpoint = plan.checkpoint
    present = {path.name: path for path in checkpoint.files}
    taken = {f"tokenizer/{name}": present[name] for name in TOKENIZER_FILES if name in present}
    taken |= {f"licence/{path.name}": path for path in checkpoint.licence_files}
    if not remaining:
        return kind_of(plan).engine_files(outcome.folders), taken
    weights = {stored.file for stored in checkpoint.tensors.values()}
    reads_source = any(stage.reads_source for stage in remaining)
    taken |= {f"{SOURCE}/{path.name}": path for path in checkpoint.files if reads_source or path not in weights}
    for name, samples in (("calibration", plan.spec.calibration), ("quality_data", plan.spec.quality_data)):
        if samples:
            taken[f"{RESUME}/{name}.jsonl"] = samples
    made: dict[str, Path] = {}
    for need in {need for stage in remaining for need in stage.needs if need in outcome.folders}:
        folder = outcome.folders[need]
        made |= {f"{RESUME}/{need}/{name}": folder / name for name in digests_of(folder)}
    return made, taken


def _manifest(
    plan: BuildPlan,
    outcome: Outcome,
    remaining: list[Stage],
    folder: Path,
    *,
    host: Host,
    digests: Mapping[str, str],
    build_key: str,
) -> Manifest:
    kind, decision, memory = kind_of(plan), plan.decision, plan.memory
    quality = read_quality(outcome.folders["quantize"]) if "quantize" in outcome.folders else None
    folders = [outcome.folders[name] for name in ("convert", "verify") if name in outcome.folders]
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
            weights_bytes=_weights_bytes(plan, folder),
            kv_bytes_per_token=memory.kv_bytes_per_token,
            kv_cache_bytes=memory.kv_bytes_per_token * memory.settings.max_seq_len * memory.settings.max_batch_size,
            state_bytes_per_sequence=memory.state_bytes_per_sequence,
        ),
        ran_on_this_hardware=kind.ran_on_hardware,
        build_key=build_key,
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        state="unfinished" if remaining else "complete",
        next_stage=remaining[0].name if remaining else None,
        container=kind.container(plan, host),
        config=plan.config,
        plan=plan_record(plan),
        llm_args=kind.llm_arguments(plan),
        quality=Quality(**quality) if quality else None,
        checks=list(dict.fromkeys(check for each in folders for check in read_checks(each))),
        warnings=list(plan.warnings),
        stages=dict(outcome.keys),
        profile_differences=profile_differences(plan),
        tool_versions=kind.tool_versions(host),
        inputs=dict(digests),
        outputs=digests_of(folder),
    )


def profile_differences(plan: BuildPlan) -> list[str]:
    """Where the checkpoint is not as published; its own files win."""
    return [
        *plan.checkpoint.architecture.differences(plan.profile.architecture),
        *plan.checkpoint.token_differences(plan.profile.control_tokens),
    ]


def plan_record(plan: BuildPlan) -> dict[str, Any]:
    """The memory plan, the roofline and the architecture as JSON values."""
    memory = plan.memory
    record = {
        "architecture": {"model_type": plan.checkpoint.architecture.model_type}
        | dataclasses.asdict(plan.checkpoint.architecture),
        "fits": memory.fits,
        "reason": memory.reason,
        "parameters": memory.parameters,
        "max_seq_len": memory.max_seq_len,
        "max_concurrency": memory.max_concurrency,
        "memory": dataclasses.asdict(memory.memory),
        "settings": dataclasses.asdict(memory.settings),
        "roofline": dataclasses.asdict(memory.roofline) if memory.roofline else None,
        "why": list(plan.decision.why),
        "notes": list(plan.decision.notes),
    }
    return dict(json.loads(json.dumps(record)))


def _weights_bytes(plan: BuildPlan, folder: Path) -> int:
    """What the weights take: the file's size where it is one file, else the plan's figure."""
    file = folder / kind_of(plan).engine_file
    return file.stat().st_size if file.is_file() else plan.memory.weights_bytes
