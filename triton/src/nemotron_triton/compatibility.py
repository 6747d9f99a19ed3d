"""Whether a bundle can be loaded: one set of rules, for `nemotron verify` and for the server before it loads.

Each kind of engine brings its own rules. Its files' digests are `Bundle.problems`. What a machine has is a parameter
(`Runtime`).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from nemotron_triton.bundle import Bundle
from nemotron_triton.engine.registry import engine_class
from nemotron_triton.errors import BundleError, ProfileError
from nemotron_triton.findings import Finding, home
from nemotron_triton.runtime import Runtime, read_runtime


def check(bundle: Bundle, runtime: Runtime | None) -> list[Finding]:
    """Every rule, what explains most first: of *bundle* alone, and with *runtime* of the machine that is to load it."""
    engine = engine_class(bundle.manifest.kind)
    machine = engine.machine_findings(bundle.manifest, runtime) if runtime else ()
    return [_state(bundle), _profile(bundle), *machine, *engine.bundle_findings(bundle)]


def check_servable(bundle: Bundle) -> None:
    """Refuse a bundle that no machine can serve; whether this machine can is `check_loadable`."""
    _refuse(bundle, check(bundle, None))


def check_loadable(bundle: Bundle, runtime: Runtime | None = None) -> None:
    """Refuse a bundle that cannot be loaded on the machine of *runtime*, by default this one."""
    _refuse(bundle, check(bundle, runtime or read_runtime()))


def _refuse(bundle: Bundle, findings: Sequence[Finding]) -> None:
    """Raise `BundleError` with the first problem of *findings*, and a word on the others."""
    problems = [finding for finding in findings if not finding.ok]
    if not problems:
        return
    first = problems[0]
    place = shlex.quote(str(bundle.path))
    more = f" ({len(problems) - 1} more: `nemotron verify {place}`)" if len(problems) > 1 else ""
    raise BundleError(f"the bundle {bundle.path} {first.detail}", f"{first.remedy}{more}")


def _state(bundle: Bundle) -> Finding:
    manifest = bundle.manifest
    if manifest.state == "complete":
        return Finding("state", "is complete")
    return Finding(
        "state",
        f"is unfinished: {manifest.next_stage or 'a stage'} was not done where it was built",
        f"finish it with `nemotron build-engine --resume {shlex.quote(str(bundle.path))}` on {home(manifest)}",
    )


def _profile(bundle: Bundle) -> Finding:
    try:
        return Finding("profile", f"speaks as {bundle.profile.name}")
    except ProfileError as error:
        return Finding("profile", f"is for a model this nemotron does not know: {error}", "install a newer nemotron")
