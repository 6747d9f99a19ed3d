"""`nemotron plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nemotron_build.architecture import Dimensions, read_architecture
from nemotron_build.checkpoint import inspect
from nemotron_build.errors import RefusedError
from nemotron_build.kinds import KIND_NAMES
from nemotron_build.planning.gpus import find_gpu, gpu_names
from nemotron_build.precisions import AUTO, KV_PRECISION_NAMES, PRECISION_NAMES
from nemotron_build.request import PlanRequest
from nemotron_cli import options
from nemotron_cli.plan_text import plan_document, print_comparison, print_json, print_plan, refusal_document
from nemotron_cli.status import DOES_NOT_FIT, REFUSED
from nemotron_triton.chat.profiles import DEFAULT_PROFILE, profile, profile_names


@click.command("plan")
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=options.names(*profile_names()),
    help=f"Default: {DEFAULT_PROFILE}. Known: {', '.join(profile_names())}.",
)
@click.option("--checkpoint", type=options.PATH, help="Read the dimensions from this checkpoint instead.")
@click.option(
    "--gpu",
    default=AUTO,
    show_default=True,
    metavar="GPU",
    shell_complete=options.names(AUTO, *gpu_names()),
    help=f"auto is the one of this machine. Known: {', '.join(gpu_names())}.",
)
@click.option(
    "--precision",
    default=PlanRequest.precision,
    show_default=True,
    metavar="P",
    shell_complete=options.names(AUTO, *PRECISION_NAMES),
    help=f"Weights: {', '.join(PRECISION_NAMES)}. auto is the recommended one.",
)
@click.option(
    "--kv-precision",
    default=PlanRequest.kv_precision,
    show_default=True,
    metavar="P",
    shell_complete=options.names(*KV_PRECISION_NAMES),
    help=f"KV cache: {', '.join(KV_PRECISION_NAMES)}.",
)
@options.max_seq_len
@click.option(
    "--concurrency", type=int, default=PlanRequest.concurrency, show_default=True, help="Requests served at once."
)
@click.option(
    "--engine-kind",
    "kind",
    metavar="KIND",
    shell_complete=options.names(*KIND_NAMES),
    help=f"{', '.join(KIND_NAMES)}. Default: the one for GPU and model.",
)
@click.option("--all-gpus", is_flag=True, help="Compare every known GPU and precision.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, whatever the answer is.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str | None,
    checkpoint: Path | None,
    gpu: str,
    all_gpus: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Say whether a model fits a GPU, how fast it can be, and what would fit instead. Runs nothing, needs no GPU.

    Exit status: 0 it fits, 3 it does not (the answer names what would), 4 the combination cannot be built (with the
    reason and the nearest that can), 2 for a wrong name or number. With --all-gpus always 0.
    """
    name, architecture = _model(model, checkpoint)
    if all_gpus:
        _compare(name, architecture, settings, as_json=as_json)
        return
    request = PlanRequest(gpu=find_gpu(gpu), architecture=architecture, **settings)
    try:
        plan = request.answer()
    except RefusedError as error:
        if not as_json:
            raise
        print_json(refusal_document(name, request, error))
        ctx.exit(REFUSED)
    alternatives = [] if plan.fits else request.alternatives()
    if as_json:
        print_json(plan_document(name, plan, alternatives))
    else:
        print_plan(name, plan, alternatives)
    if not plan.fits:
        ctx.exit(DOES_NOT_FIT)


def _model(model: str | None, checkpoint: Path | None) -> tuple[str, Dimensions]:
    if checkpoint is None:
        model_profile = profile(model or DEFAULT_PROFILE)
        return model_profile.name, read_architecture(model_profile.architecture)
    name = profile(model).name if model else checkpoint.resolve().name
    return name, inspect(checkpoint).architecture


def _compare(name: str, architecture: Dimensions, settings: dict[str, Any], *, as_json: bool) -> None:
    precisions = PRECISION_NAMES if settings["precision"] == AUTO else (settings["precision"],)
    rows = []
    for gpu in map(find_gpu, gpu_names()):
        for precision in precisions:
            request = PlanRequest(gpu=gpu, architecture=architecture, **settings | {"precision": precision})
            try:
                rows.append(plan_document(name, request.answer(), ()))
            except RefusedError as error:
                rows.append(refusal_document(name, request, error))
    if as_json:
        print_json(rows)
    else:
        print_comparison(rows)
