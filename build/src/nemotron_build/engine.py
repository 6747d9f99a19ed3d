"""Checkpoint to engine bundle: `dry_run` shows what a build would do, `build` does it, `resume` finishes it elsewhere.

Deciding is `build_plan`'s, the steps are in `stages/`; here is their order, and what a second run finds already done.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_build.build_plan import make_plan, resumed_plan
from nemotron_build.errors import DoesNotFitError, OutputError
from nemotron_build.host import Host, read_host
from nemotron_build.planning.planner import MemoryPlan
from nemotron_build.processes import Runner, run
from nemotron_build.reporter import Reporter
from nemotron_build.spec import EngineSpec
from nemotron_build.stages.inspect import digest_files
from nemotron_build.stages.kind import kind_of
from nemotron_build.stages.package import RESUME, package, plan_record
from nemotron_build.stages.pipeline import Stage, key_of, run_stages
from nemotron_build.stages.plan import BuildPlan
from nemotron_build.stages.workspace import Workspace
from nemotron_triton.atomic import old_place, restore_folder
from nemotron_triton.bundle import MANIFEST, Bundle, Manifest
from nemotron_triton.errors import BundleError

__all__ = ["Built", "EngineSpec", "Reporter", "build", "dry_run", "resume"]


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a build came to: its manifest, and why it had to stop where it did, if it did."""

    manifest: Manifest
    blocked: str | None = None


def workspace_of(output: Path) -> Workspace:
    """Where the stages of the bundle at *output* are kept."""
    return Workspace(output.with_name(f"{output.name}.build"))


def dry_run(spec: EngineSpec, output: Path, *, host: Host | None = None) -> dict[str, Any]:
    """The whole plan as JSON values: settings, memory, stages and exact commands. Writes nothing, reads no weights."""
    host = host or read_host()
    output = output.absolute()
    _check_place(output)
    plan = make_plan(spec)
    stages = kind_of(plan).stages(plan, {}, host, workspace_of(output))

    def row(name: str, commands: Sequence[Sequence[str]] = (), blocked: str | None = None) -> dict[str, Any]:
        return {"name": name, "commands": [list(argv) for argv in commands], "blocked": blocked}

    rows = [row(stage.name, stage.commands, stage.blocked) for stage in stages]
    return {
        "output": str(output),
        "config": plan.config,
        "warnings": list(plan.warnings),
        "plan": plan_record(plan),
        "stages": [row("inspect"), *rows, row("package")],
    }


def build(
    spec: EngineSpec,
    output: Path,
    *,
    reporter: Reporter | None = None,
    host: Host | None = None,
    runner: Runner = run,
) -> Built:
    """Build the bundle of *spec* at *output*; stages that were done before, and still hold, are not done again.

    A bundle at *output* is replaced when the new one is complete; anything else there is left alone (`OutputError`).
    `DoesNotFitError` when the plan does not fit its GPU.
    """
    output = output.absolute()
    _check_place(output)
    plan = make_plan(spec)
    if not plan.memory.fits:
        raise DoesNotFitError(does_not_fit(plan.memory))
    reporter = reporter or Reporter()
    host = host or read_host()
    workspace = workspace_of(output)
    with workspace.open(reporter):
        restore_folder(output)
        digests = digest_files(plan.checkpoint, workspace, reporter)
        stages = kind_of(plan).stages(plan, digests, host, workspace)
        build_key = key_of(plan.config, plan.chat_template, digests, [[stage.name, stage.settings] for stage in stages])
        if finished := _finished(output, build_key):
            reporter.note(f"{output} is up to date")
            return Built(manifest=finished)
        outcome = run_stages(stages, workspace, reporter=reporter, runner=runner, given={})
        reporter.stage("package")
        manifest = package(plan, outcome, output, host=host, digests=digests, build_key=build_key)
    return Built(manifest=manifest, blocked=outcome.blocked)


def resume(
    place: Path,
    *,
    image: str | None = None,
    reporter: Reporter | None = None,
    host: Host | None = None,
    runner: Runner = run,
) -> Built:
    """Go on with the unfinished bundle at *place* where its manifest says it ended; `BundleError` if it was changed.

    *image* is the container to compile in, by default ours: which one runs here is not for the bundle to say.
    """
    reporter = reporter or Reporter()
    host = host or read_host()
    place = place.absolute()
    if not any(path.exists() for path in (place, old_place(place))):
        Bundle.open(place)  # There is none, and it says so before anything is made beside it.
    workspace = workspace_of(place)
    with workspace.open(reporter):
        restore_folder(place)
        bundle = Bundle.open(place)
        manifest = bundle.manifest
        if manifest.state == "complete":
            reporter.note(f"{place} is complete")
            return Built(manifest=manifest)
        reporter.stage("inspect")
        bundle.verify()
        plan = resumed_plan(bundle, image)
        _check_resumed(bundle, plan)
        todo = _todo(bundle, plan, kind_of(plan).stages(plan, manifest.inputs, host, workspace))
        given = _given(bundle, todo)
        outcome = run_stages(todo, workspace, reporter=reporter, runner=runner, given=given)
        if outcome.keys:
            reporter.stage("package")
            key = manifest.build_key
            manifest = package(plan, outcome, place, host=host, digests=manifest.inputs, build_key=key, before=manifest)
    return Built(manifest=manifest, blocked=outcome.blocked)


def _check_resumed(bundle: Bundle, plan: BuildPlan) -> None:
    """Refuse a manifest whose settings are no longer those that its stages were made with."""
    manifest, decision = bundle.manifest, plan.decision
    for name, value, setting in (
        ("gpu", manifest.gpu, plan.gpu.name),
        ("kind", manifest.kind, decision.kind.name),
        ("precision", manifest.precision, decision.precision.name),
        ("kv_precision", manifest.kv_precision, decision.kv_precision),
        ("max_seq_len", manifest.max_seq_len, plan.memory.settings.max_seq_len),
        ("max_batch_size", manifest.max_batch_size, plan.memory.settings.max_batch_size),
    ):
        if value != setting:
            said = f"{name} {value} and, among its settings, {setting}"
            raise BundleError(f"{bundle.path / MANIFEST} says {said}; build the bundle again")


def _todo(bundle: Bundle, plan: BuildPlan, stages: list[Stage]) -> list[Stage]:
    """The stages from the one that *bundle* ended before."""
    names = [stage.name for stage in stages]
    if bundle.manifest.next_stage not in names:
        raise BundleError(
            f"{bundle.path / MANIFEST} ends before {bundle.manifest.next_stage!r}, which is no stage of "
            f"{bundle.manifest.kind} bundles ({', '.join(names)}); build the bundle again"
        )
    todo = stages[names.index(bundle.manifest.next_stage) :]
    if not plan.checkpoint.tensors and any(stage.reads_source for stage in todo):
        raise BundleError(f"{bundle.path} does not carry the weights that {todo[0].name} reads; build the bundle again")
    return todo


def _given(bundle: Bundle, todo: list[Stage]) -> dict[str, Path]:
    """The outputs that *bundle* carries for the stages *todo*, every file of which its manifest lists."""
    if unlisted := sorted(bundle.unlisted()):
        raise BundleError(f"{bundle.path / unlisted[0]} is not of this bundle; remove it, or copy the bundle again")
    needs = {need for stage in todo for need in stage.needs} - {stage.name for stage in todo}
    given = {name: bundle.path / RESUME / name for name in sorted(needs)}
    for name, folder in given.items():
        # ModelOpt's own format is a pickle, which is loaded from nowhere but the workspace that it was made in.
        if not folder.is_dir() or any(folder.rglob("*.pth")):
            raise BundleError(f"{bundle.path} does not carry what {name} made as a build leaves it; build it again")
    return given


def does_not_fit(memory: MemoryPlan) -> str:
    """Why *memory* does not fit, and what does."""
    limits = {"--max-batch-size": memory.max_concurrency, "--max-seq-len": memory.max_seq_len}
    fits = " or ".join(f"{flag} {limit}" for flag, limit in limits.items() if limit) or "another precision or GPU"
    return f"this does not fit {memory.gpu}: {memory.reason}; {fits} fits, and `nemotron plan` shows more"


def _check_place(output: Path) -> None:
    """Refuse a place where something else is than a bundle of ours."""
    if output.name in ("", ".."):
        raise OutputError(f"{output} is no place for a bundle; give another --output")
    if output.is_symlink() or (output.exists() and not _is_ours(output)):
        raise OutputError(f"{output} exists; remove it or give another --output")


def _is_ours(output: Path) -> bool:
    """Whether *output* is a bundle, of whatever version, with no other files in it."""
    try:
        manifest = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
        if not {"schema_version", "profile", "kind", "outputs"} <= manifest.keys():
            return False
        files = {path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir()}
        return files <= {MANIFEST, *manifest["outputs"]}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return False


def _finished(output: Path, build_key: str) -> Manifest | None:
    """The manifest of the bundle at *output* if it is complete, unchanged and what would be built."""
    try:
        bundle = Bundle.open(output)
        if (bundle.manifest.build_key, bundle.manifest.state) != (build_key, "complete"):
            return None
        bundle.verify()
    except BundleError:
        return None
    return bundle.manifest
