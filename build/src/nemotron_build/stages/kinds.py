"""The engine kinds behind one interface: each is a module of this folder, which imports heavy packages late."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from nemotron_build.build_plan import BuildPlan
from nemotron_build.host import Host
from nemotron_build.stages import cpu, edge, pytorch, tensorrt
from nemotron_build.stages.pipeline import Stage
from nemotron_build.stages.workspace import Workspace


class EngineKind(Protocol):
    """What a build asks of a kind. `ENGINE` is the engine's file or folder in the bundle."""

    ENGINE: str

    def stages(self, plan: BuildPlan, digests: Mapping[str, str], host: Host, workspace: Workspace, /) -> list[Stage]:
        """The stages between *inspect* and *package*; *digests* are of the checkpoint's files, empty for a dry run."""

    def tool_versions(self, host: Host, /) -> dict[str, str]:
        """The versions of the tools that a build uses."""

    def engine_files(self, folders: Mapping[str, Path], /) -> dict[str, Path]:
        """The files of the finished engine by their place in the bundle, from the folders of the stages."""


_KINDS: dict[str, EngineKind] = {"tensorrt": tensorrt, "pytorch": pytorch, "edge": edge, "cpu": cpu}


def kind_of(plan: BuildPlan) -> EngineKind:
    """The kind that *plan* builds."""
    return _KINDS[plan.decision.kind]
