"""The stages of a `cpu` bundle: a GGUF file for llama.cpp, written in this process."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

from nemotron_build.build_plan import BuildPlan
from nemotron_build.host import Host
from nemotron_build.stages.pipeline import Stage, Work
from nemotron_build.stages.verified import write_checks
from nemotron_build.stages.workspace import Workspace

ENGINE = "engine/model.gguf"


def stages(plan: BuildPlan, digests: Mapping[str, str], _: Host, __: Workspace) -> list[Stage]:
    """Convert and verify."""
    precision = plan.decision.precision

    def convert(work: Work) -> None:
        from nemotron_build.gguf_file import write_gguf

        (work.folder / ENGINE).parent.mkdir()
        write_gguf(
            plan.checkpoint,
            precision,
            work.folder / ENGINE,
            name=plan.profile.name,
            progress=work.reporter.progress,
        )

    def verify(work: Work) -> None:
        from nemotron_build.verification.gguf import check_gguf

        write_checks(work.folder, check_gguf(work.inputs["convert"] / ENGINE, plan.checkpoint))

    return [
        Stage(
            name="convert",
            make=convert,
            settings={
                "inputs": dict(digests),
                "precision": precision.name,
                "type": precision.gguf,
                "name": plan.profile.name,
                "tools": _tools(),
            },
            reads_source=True,
        ),
        Stage(name="verify", make=verify, settings={"tools": _tools()}, needs=("convert",)),
    ]


def tool_versions(_: Host) -> dict[str, str]:
    """The versions of what writes the file."""
    return _tools()


def _tools() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("nemotron-triton", "gguf", "safetensors")}


def engine_files(folders: Mapping[str, Path]) -> dict[str, Path]:
    """The files of the engine by their place in the bundle."""
    return {ENGINE: folders["convert"] / ENGINE}
