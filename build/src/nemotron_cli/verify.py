"""`nemotron verify`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nemotron_build.reporter import Reporter
from nemotron_cli import options
from nemotron_cli.progress import TerminalReporter
from nemotron_cli.terminal import printable
from nemotron_triton.bundle import Bundle
from nemotron_triton.compatibility import check
from nemotron_triton.errors import BundleError
from nemotron_triton.findings import Finding
from nemotron_triton.runtime import read_runtime

_SHOWN = 10


@click.command("verify")
@click.argument("bundle", type=options.PATH)
@click.option("--bundle-only", is_flag=True, help="Leave this machine out: its GPU, TensorRT-LLM and engine kinds.")
@options.as_json
@click.pass_context
def command(ctx: click.Context, /, bundle: Path, bundle_only: bool, as_json: bool) -> None:
    """Check whether BUNDLE is whole and can be loaded on this machine, and name every problem with its remedy.

    The manifest, the SHA-256 of every file, files that the manifest does not list, and what the server checks before
    it loads: GPU, versions, engine kind. Progress goes to stderr.

    Exit status: 0 everything is all right, 1 something is wrong.
    """
    with TerminalReporter() as reporter:
        findings = _findings(bundle, reporter, bundle_only=bundle_only)
    ok = all(finding.ok for finding in findings)
    if as_json:
        checks = [
            {"name": finding.name, "ok": finding.ok, "detail": finding.detail, "remedy": finding.remedy}
            for finding in findings
        ]
        click.echo(json.dumps({"bundle": str(bundle), "ok": ok, "checks": checks}, indent=2))
    else:
        click.echo(f"the bundle {printable(str(bundle))}")
        for finding in findings:
            click.echo(f"  {'ok     ' if finding.ok else 'problem'}  {printable(finding.detail)}")
            if finding.remedy:
                click.echo(f"           {printable(finding.remedy)}")
    if not ok:
        ctx.exit(1)


def _findings(path: Path, reporter: Reporter, *, bundle_only: bool) -> list[Finding]:
    try:
        bundle = Bundle.open(path)
    except BundleError as error:
        return [Finding("manifest", error.detail, error.remedy)]
    return [
        Finding("manifest", f"has a manifest of schema {bundle.manifest.schema_version}"),
        *_files(bundle, reporter),
        *check(bundle, None if bundle_only else read_runtime()),
    ]


def _files(bundle: Bundle, reporter: Reporter) -> list[Finding]:
    outputs = bundle.manifest.outputs
    total = sum(_size(bundle, name) for name in outputs)
    done = 0

    def count(read: int) -> None:
        nonlocal done
        done += read
        reporter.progress(done >> 20, total >> 20)

    reporter.stage("MiB read")
    problems = [Finding("files", error.detail, error.remedy) for error in bundle.problems(read=count)]
    if unlisted := bundle.unlisted():
        names = ", ".join(unlisted[:_SHOWN]) + (f" and {len(unlisted) - _SHOWN} more" if unlisted[_SHOWN:] else "")
        problems.append(
            Finding("files", f"holds what its manifest does not list: {names}", "remove it, or copy the bundle again")
        )
    return problems or [Finding("files", f"has its {len(outputs)} files as they were built ({total / 1e6:.1f} MB)")]


def _size(bundle: Bundle, name: str) -> int:
    try:
        return bundle.file(name).stat().st_size
    except (BundleError, OSError):
        return 0
