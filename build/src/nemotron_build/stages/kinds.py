"""The stages of each engine kind, behind one interface. Heavy packages are imported where they are used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nemotron_build.build_plan import BuildPlan
from nemotron_build.host import Host
from nemotron_build.stages import cpu, edge, pytorch, tensorrt
from nemotron_build.stages.pipeline import Stage
from nemotron_build.stages.workspace import Workspace


def stages_of(plan: BuildPlan, digests: Mapping[str, str], host: Host, workspace: Workspace) -> list[Stage]:
    """The stages between *inspect* and *package*; *digests* are of the checkpoint's files, empty for a dry run."""
    kind = plan.decision.kind
    if kind == "tensorrt":
        return tensorrt.stages(plan, digests, host, workspace)
    if kind == "pytorch":
        return pytorch.stages(plan, digests, host, workspace)
    if kind == "edge":
        return edge.stages(plan, digests, host, workspace)
    return cpu.stages(plan, digests)


def engine_files(plan: BuildPlan, folders: Mapping[str, Path]) -> dict[str, Path]:
    """The files of the finished engine by their place in the bundle, from the folders of the stages."""
    found = {
        "tensorrt": tensorrt.engine_files,
        "pytorch": pytorch.engine_files,
        "edge": edge.engine_files,
        "cpu": cpu.engine_files,
    }
    return found[plan.decision.kind](folders)


def engine_place(plan: BuildPlan) -> str:
    """The engine's file or folder in the bundle."""
    return cpu.ENGINE_FILE if plan.decision.kind == "cpu" else "engine"


def tool_versions(plan: BuildPlan, host: Host) -> dict[str, str]:
    """The versions of the tools a build of this kind uses."""
    kind = plan.decision.kind
    if kind == "tensorrt":
        return tensorrt.tool_versions(host)
    found = {"pytorch": pytorch.tool_versions, "edge": edge.tool_versions, "cpu": cpu.tool_versions}
    return found[kind]()
