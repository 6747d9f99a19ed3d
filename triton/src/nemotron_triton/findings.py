"""What rules find about a bundle and a machine, and the rules that several kinds of engine share.

What a finding says is a predicate, to be read after "the bundle".
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from nemotron_triton.bundle import Manifest
from nemotron_triton.releases import same_release
from nemotron_triton.runtime import Runtime


@dataclass(frozen=True)
class Finding:
    """One rule and what it found; a problem has a `remedy`, what is all right has none."""

    name: str
    detail: str
    remedy: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against loading."""
        return self.remedy is None


def same_sm(manifest: Manifest, runtime: Runtime) -> Finding:
    """Whether the machine has a GPU of the SM that the engine was compiled for."""
    if manifest.sm is None:
        return Finding("gpu", "does not say for which GPU it was compiled", f"build it again: {rebuild(manifest)}")
    if manifest.sm in runtime.sms:
        return Finding("gpu", f"was built for SM {manifest.sm}, and this machine has {runtime.gpu_titles}")
    return Finding(
        "gpu",
        f"was built for {manifest.gpu} (SM {manifest.sm}), and {gpus_seen(runtime)}",
        elsewhere(manifest, runtime),
    )


def same_version(
    name: str, title: str, built: str | None, here: str | None, *, remedy: str, difference: str = ""
) -> Finding:
    """Whether *title* is *here* in the release that the engine was built with; *difference* is said of another."""
    if built is None:
        return Finding(name, f"does not say with which {title} it was built", remedy)
    if here is None:
        return Finding(name, f"was built with {title} {built}, which is not installed here", remedy)
    if same_release(built, here):
        return Finding(name, f"was built with {title} {built}, as it is here")
    return Finding(name, f"was built with {title} {built}, and here is {here}{difference}", remedy)


def gpus_seen(runtime: Runtime) -> str:
    """The GPUs of the machine, or why none is seen."""
    return runtime.nvml.problem or f"this machine has {runtime.gpu_titles}"


def elsewhere(manifest: Manifest, runtime: Runtime) -> str:
    """Where a bundle can go that the GPUs of *runtime* cannot load."""
    if runtime.nvml.gpus:
        return f"move it to {home(manifest)}, or build it for this GPU: {rebuild(manifest)}"
    see = f"{runtime.nvml.remedy}; or " if runtime.nvml.remedy else ""
    return f"{see}move it to {home(manifest)}"


def home(manifest: Manifest) -> str:
    """The machine that the bundle is for."""
    return f"a machine with {manifest.gpu}{f' (SM {manifest.sm})' if manifest.sm else ''}"


def rebuild(manifest: Manifest, *, keep: bool = False, kind: str | None = None) -> str:
    """The command that makes a bundle like it for the local GPU; its precision is *kept* where the GPU is the same."""
    precision = ["--precision", manifest.precision] if keep else []
    wanted = ["--engine-kind", kind] if kind else []
    limits = ["--max-seq-len", str(manifest.max_seq_len), "--max-batch-size", str(manifest.max_batch_size)]
    options = ["--gpu", "auto", *precision, *wanted, "--model", manifest.profile, *limits, "--output", "OTHER"]
    return f"`nemotron build-engine CHECKPOINT {shlex.join(options)}`"
