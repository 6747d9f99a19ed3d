"""The result of a rule about a bundle and a machine, and the rules that several kinds of engine share.

The text of a finding is a predicate, to be read after "the bundle".
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from nemotron_triton.bundle import Manifest
from nemotron_triton.releases import same_release
from nemotron_triton.runtime import Runtime


@dataclass(frozen=True)
class Finding:
    """The result of one rule; only a problem has a `remedy`."""

    name: str
    detail: str
    remedy: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the rule is met."""
        return self.remedy is None


def same_sm(manifest: Manifest, runtime: Runtime) -> Finding:
    """Whether the machine has a GPU of the SM that the engine was compiled for."""
    if manifest.sm is None:
        return Finding("gpu", "does not say for which GPU it was compiled", f"build it again: {rebuild(manifest)}")
    if manifest.sm in runtime.sms:
        return Finding("gpu", f"was built for SM {manifest.sm}, and this machine has {runtime.gpu_titles}")
    detail = f"was built for {manifest.gpu} (SM {manifest.sm}), and {gpus_seen(runtime)}"
    return Finding("gpu", detail, elsewhere(manifest, runtime))


def same_version(
    name: str, title: str, built: str | None, here: str | None, *, remedy: str, difference: str = ""
) -> Finding:
    """Whether *title* is *here* in the release that the engine was built with; *difference* explains another one."""
    if built is None:
        return Finding(name, f"does not say with which {title} it was built", remedy)
    if here is None:
        return Finding(name, f"was built with {title} {built}, which is not installed here", remedy)
    if same_release(built, here):
        return Finding(name, f"was built with {title} {built}, as it is here")
    return Finding(name, f"was built with {title} {built}, and here is {here}{difference}", remedy)


def gpus_seen(runtime: Runtime) -> str:
    """The GPUs of the machine, or why there are none."""
    return runtime.nvml.problem or f"this machine has {runtime.gpu_titles}"


def elsewhere(manifest: Manifest, runtime: Runtime) -> str:
    """The remedy for a bundle that the GPUs of *runtime* cannot load."""
    if runtime.nvml.gpus:
        return f"move it to {target(manifest)}, or build it for this GPU: {rebuild(manifest)}"
    return f"{f'{runtime.nvml.remedy}; or ' if runtime.nvml.remedy else ''}move it to {target(manifest)}"


def target(manifest: Manifest) -> str:
    """The kind of machine that the bundle was built for."""
    return f"a machine with {manifest.gpu}{f' (SM {manifest.sm})' if manifest.sm else ''}"


def rebuild(manifest: Manifest, *, keep: bool = False, kind: str | None = None) -> str:
    """The command that builds the same for the local GPU: in the same precision if *keep*, perhaps another *kind*."""
    choices = [*(["--precision", manifest.precision] if keep else []), *(["--engine-kind", kind] if kind else [])]
    limits = ["--max-seq-len", str(manifest.max_seq_len), "--max-batch-size", str(manifest.max_batch_size)]
    options = ["--gpu", "auto", *choices, "--model", manifest.profile, *limits, "--output", "OTHER"]
    return f"`nemotron build-engine CHECKPOINT {shlex.join(options)}`"
