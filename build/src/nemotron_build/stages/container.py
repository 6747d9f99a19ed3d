"""TensorRT-LLM's tools: here where it is installed, else in NVIDIA's container."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath, PurePosixPath

from nemotron_build.commands.container import Mount, container_argv, remove_argv
from nemotron_build.commands.versions import TRITON_IMAGE
from nemotron_build.errors import ToolError
from nemotron_build.host import Host
from nemotron_build.stages.pipeline import Work, key_of
from nemotron_build.stages.plan import BuildPlan
from nemotron_build.stages.workspace import Workspace

# Where the container sees the folders of the host.
_SOURCE, _OUTPUT = PurePosixPath("/source"), PurePosixPath("/output")


def image(plan: BuildPlan, host: Host) -> str | None:
    """The container that compiles, or None where TensorRT-LLM is installed."""
    return None if host.builds_engines else plan.spec.image or TRITON_IMAGE


def tool_command(
    stage: str,
    argv: Callable[[PurePath, PurePath], list[str]],
    source: Path,
    output: Path,
    plan: BuildPlan,
    host: Host,
    workspace: Workspace,
    *,
    here: bool,
    network: bool = False,
) -> list[str]:
    """The command of *stage* that *argv* gives for *source* and *output*: as they are *here*, or in the container."""
    if here:
        return argv(source, output)
    index = host.device(plan.gpu.sm)
    return container_argv(
        argv(_SOURCE, _OUTPUT),
        mounts=[
            Mount(host=PurePosixPath(source), container=_SOURCE),
            Mount(host=PurePosixPath(output), container=_OUTPUT, read_only=False),
        ],
        user=(os.getuid(), os.getgid()),
        name=f"nemotron-{stage}-{key_of(str(workspace.folder))[:12]}",
        image=plan.spec.image or TRITON_IMAGE,
        gpus="all" if index is None else f"device={index}",
        network=network,
    )


def run_tool(work: Work, argv: Sequence[str], host: Host, plan: BuildPlan) -> None:
    """Run *argv* on a GPU of the right kind; a container does not outlive the build, nor one that was killed before."""
    if argv[0] != "docker":
        index = host.device(plan.gpu.sm)
        # CUDA's own order is by speed; NVML's, which the index is of, by bus.
        chosen = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(index)}
        work.runner(argv, work.log, env=None if index is None else chosen)
        return
    remove = remove_argv(argv[argv.index("--name") + 1])
    with contextlib.suppress(ToolError):
        work.runner(remove, work.log)
    try:
        work.runner(argv, work.log)
    except BaseException:
        with contextlib.suppress(ToolError):
            work.runner(remove, work.log)
        raise
