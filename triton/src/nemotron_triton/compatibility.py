"""Whether a bundle can be loaded: the rules for `nemotron verify` and for the server before it loads.

Each kind of engine has its own rules. The machine is a parameter (`Runtime`). Digests are checked by `Bundle.problems`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from nemotron_triton.bundle import Bundle
from nemotron_triton.engine.interface import engine_class
from nemotron_triton.errors import BundleError, ProfileError
from nemotron_triton.findings import Finding, target
from nemotron_triton.runtime import Runtime, read_runtime


def check(bundle: Bundle, runtime: Runtime | None) -> list[Finding]:
    """The results of all rules, causes before effects: of *bundle*, and with *runtime* of the machine to load it."""
    engine = engine_class(bundle.manifest.kind)
    machine = engine.machine_findings(bundle.manifest, runtime) if runtime else ()
    return [_state(bundle), _profile(bundle), *machine, *engine.bundle_findings(bundle)]


def check_servable(bundle: Bundle) -> None:
    """Raise `BundleError` for a bundle that no machine can serve."""
    _refuse(bundle, check(bundle, None))


def check_loadable(bundle: Bundle, runtime: Runtime | None = None) -> None:
    """Raise `BundleError` for a bundle that the machine of *runtime*, by default this one, cannot load."""
    _refuse(bundle, check(bundle, runtime or read_runtime()))


def _refuse(bundle: Bundle, findings: Sequence[Finding]) -> None:
    if problems := [finding for finding in findings if not finding.ok]:
        first, *others = problems
        more = f" ({len(others)} more: `nemotron verify {shlex.quote(str(bundle.path))}`)" if others else ""
        raise BundleError(f"the bundle {bundle.path} {first.detail}", f"{first.remedy}{more}")


def _state(bundle: Bundle) -> Finding:
    manifest = bundle.manifest
    if manifest.state == "complete":
        return Finding("state", "is complete")
    detail = f"is unfinished: {manifest.next_stage or 'a stage'} was not done where it was built"
    command = f"`nemotron build-engine --resume {shlex.quote(str(bundle.path))}`"
    return Finding("state", detail, f"finish it with {command} on {target(manifest)}")


def _profile(bundle: Bundle) -> Finding:
    try:
        return Finding("profile", f"is for the model {bundle.profile.name}")
    except ProfileError as error:
        if error.remedy:
            return Finding("profile", f"cannot be matched to its model: {error.detail}", error.remedy)
        return Finding("profile", f"is for a model this nemotron does not know: {error}", "install a newer nemotron")
