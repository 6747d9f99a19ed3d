"""What a build asks of an engine kind, beside what planning asks of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from nemotron_build.host import Host
from nemotron_build.needs import Need, Verb
from nemotron_build.planning.kind import Kind
from nemotron_build.quantization.environment import Environment
from nemotron_build.stages.pipeline import Stage
from nemotron_build.stages.plan import BuildPlan
from nemotron_build.stages.workspace import Workspace, files_in


class EngineKind(Kind):
    """A kind with all that building it takes. Its module imports heavy packages late.

    `engine_file` is the engine's file or folder in the bundle, `made_in` the stage whose output it is and the folder
    there, `modelopt` what quantises it, `needs` what a machine must have for it. `ran_on_hardware` is whether this
    project's own tests load such engines.
    """

    engine_file: ClassVar[str] = "engine"
    made_in: ClassVar[tuple[str, str]] = ("compile", "engine")
    ran_on_hardware: ClassVar[bool] = False
    modelopt: ClassVar[Environment | None] = None
    needs: ClassVar[Mapping[Verb, frozenset[Need]]]

    @abstractmethod
    def stages(self, plan: BuildPlan, digests: Mapping[str, str], host: Host, workspace: Workspace, /) -> list[Stage]:
        """The stages between *inspect* and *package*; *digests* are of the checkpoint's files, empty for a dry run."""

    @abstractmethod
    def tool_versions(self, host: Host, /) -> dict[str, str]:
        """The versions of the tools that a build uses."""

    def engine_files(self, folders: Mapping[str, Path], /) -> dict[str, Path]:
        """The files of the finished engine by their place in the bundle, from the folders of the stages."""
        stage, place = self.made_in
        folder = folders[stage] / place
        return {f"engine/{name}": folder / name for name in files_in(folder)}

    def container(self, plan: BuildPlan, host: Host, /) -> str | None:  # noqa: ARG002 - most kinds have none
        """The image that compiles it, where one does."""
        return None

    def llm_arguments(self, plan: BuildPlan, /) -> dict[str, Any] | None:  # noqa: ARG002 - most kinds have none
        """What TensorRT-LLM's LLM API is called with, where that runs it; paths are the bundle's."""
        return None


def kind_of(plan: BuildPlan) -> EngineKind:
    """The kind that *plan* builds: planning decides among `EngineKind`s, of which it knows less."""
    assert isinstance(plan.decision.kind, EngineKind)
    return plan.decision.kind
