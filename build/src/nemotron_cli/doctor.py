"""`nemotron doctor`."""

from __future__ import annotations

import json
from typing import Any

import click

from nemotron_build.diagnosis import Check, Diagnosis, Task
from nemotron_build.doctor import diagnose
from nemotron_build.kinds import KIND_NAMES
from nemotron_build.machine import read_machine
from nemotron_build.needs import VERBS
from nemotron_cli import options
from nemotron_cli.tables import Table
from nemotron_cli.terminal import printable


@click.command("doctor")
@options.as_json
@click.pass_context
def command(ctx: click.Context, /, as_json: bool) -> None:
    """Say what engines this machine can build and serve, what it lacks for which kind, and the fix for each.

    Looks, and changes nothing. In the table, a kind's column says whether it is built or served with that row:
    there, or missing.

    Exit status: 0 when engines of at least one kind can be built and served here, else 1.
    """
    diagnosis = diagnose(read_machine())
    if as_json:
        click.echo(json.dumps(_values(diagnosis), indent=2))
    else:
        _print(diagnosis)
    if not diagnosis.ok:
        ctx.exit(1)


def _values(diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "ok": diagnosis.ok,
        "kinds": {
            kind: {verb: {"ok": not (missing := diagnosis.missing(verb, kind)), "missing": missing} for verb in VERBS}
            for kind in KIND_NAMES
        },
        "checks": [
            {
                "name": check.name,
                "ok": check.ok,
                "detail": check.detail,
                "remedy": check.remedy,
                "needed_for": _names(check.needed),
                "missing_for": _names(check.fails),
            }
            for check in diagnosis.checks
        ],
    }


def _print(diagnosis: Diagnosis) -> None:
    rows = Table("", *KIND_NAMES, "found here")
    for check in diagnosis.checks:
        rows.add_row(check.name, *(_cell(check, kind) for kind in KIND_NAMES), printable(check.detail))
    rows.add_row("", *("" for _ in KIND_NAMES), "")
    for verb in VERBS:
        rows.add_row(f"can {verb}", *("no" if diagnosis.missing(verb, kind) else "yes" for kind in KIND_NAMES), "")
    rows.show()
    fixes = [check for check in diagnosis.checks if check.remedy]
    if fixes:
        click.echo("\nwhat to do:")
    for check in fixes:
        advice = "" if check.fails else " (advice)"
        click.echo(f"  {check.name}{advice}: {printable(str(check.remedy))}")


def _cell(check: Check, kind: str) -> str:
    if any((verb, kind) in check.fails for verb in VERBS):
        return "missing"
    return "there" if any((verb, kind) in check.needed for verb in VERBS) else ""


def _names(tasks: frozenset[Task]) -> list[str]:
    return [f"{verb} {kind}" for kind in KIND_NAMES for verb in VERBS if (verb, kind) in tasks]
