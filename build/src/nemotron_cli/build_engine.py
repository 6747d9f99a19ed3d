"""`nemotron build-engine`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from nemotron_build.engine import Built, build, dry_run, resume
from nemotron_build.kinds import KIND_NAMES
from nemotron_build.planning.gpus import gpu_names
from nemotron_build.precisions import AUTO, KV_PRECISION_NAMES, PRECISION_NAMES
from nemotron_build.spec import EngineSpec, make_spec, read_config
from nemotron_cli.options import DEVICE, PATH, max_seq_len, names
from nemotron_cli.progress import TerminalReporter
from nemotron_cli.status import DOES_NOT_FIT, UNFINISHED
from nemotron_triton.bundle import Manifest
from nemotron_triton.chat.profiles import profile_names


@click.command("build-engine")
@click.argument("checkpoint", type=PATH, required=False)
@click.option(
    "--gpu",
    metavar="GPU",
    shell_complete=names(AUTO, *gpu_names()),
    help=f"What the engine will run on: auto, {', '.join(gpu_names())}.",
)
@click.option(
    "--precision",
    metavar="P",
    shell_complete=names(AUTO, *PRECISION_NAMES),
    help=f"Weights: auto (default), {', '.join(PRECISION_NAMES)}.",
)
@click.option(
    "--kv-precision",
    metavar="P",
    shell_complete=names(*KV_PRECISION_NAMES),
    help=f"KV cache: {', '.join(KV_PRECISION_NAMES)}. Default: auto.",
)
@click.option(
    "--engine-kind",
    metavar="KIND",
    shell_complete=names(*KIND_NAMES),
    help=f"Default: by GPU and model. Known: {', '.join(KIND_NAMES)}.",
)
@click.option("--output", type=PATH, help="The bundle. An older one there is replaced by the complete new one.")
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=names(*profile_names()),
    help=f"Whose prompt and tool-call formats it has: {', '.join(profile_names())}. Default: {EngineSpec.model}.",
)
@max_seq_len
@click.option(
    "--max-batch-size",
    type=int,
    help=f"Requests generated for at once; more wait. Default: {EngineSpec.max_batch_size}.",
)
@click.option("--chat-template", type=PATH, help="Jinja file to render prompts with, instead of ours.")
@click.option("--calibration", type=PATH, help="JSON lines of conversations to calibrate on, instead of our 96.")
@click.option("--calibration-samples", type=int, help="How many of them at most. Default: 512.")
@click.option("--quality-data", type=PATH, help="JSON lines to measure the cost of quantising on, instead of our 24.")
@click.option("--quality-samples", type=int, help="How many of them at most. Default: 24.")
@click.option("--device", type=DEVICE, metavar="D", help="Where quantising computes: auto (default), cpu, cuda.")
@click.option("--image", metavar="IMAGE", help="Container that compiles, with a tag or digest of your own.")
@click.option("--config", "config_file", type=PATH, help="YAML file with the same settings (max_seq_len: 4096).")
@click.option("--resume", "resumed", type=PATH, metavar="BUNDLE", help="Finish an unfinished bundle on this machine.")
@click.option("--dry-run", "dry", is_flag=True, help="Print what would be done, with exact commands; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout: the manifest, or the plan.")
def command(
    *,
    output: Path | None,
    config_file: Path | None,
    resumed: Path | None,
    dry: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Build an engine bundle from CHECKPOINT, a Hugging Face checkpoint folder.

    The bundle is a folder with the engine, the tokenizer and a manifest with the digest of every file. It appears
    when it is complete. What was done is kept in BUNDLE.build beside it, with the tools' logs: a second run goes on
    where the first was interrupted, and repeats only what a change makes necessary. Remove it when you are done.

    Flags win over the --config file.

    \b
    Exit status, beside the usual: 3 the plan does not fit the GPU, 4 the combination does not exist,
    5 the bundle is unfinished, because a stage needs another machine (finish it there with --resume).
    """  # noqa: D301 - click wants the control character
    flags = {name: value for name, value in settings.items() if value is not None}
    if resumed:
        image = flags.pop("image", None)
        if flags or output or config_file or dry:
            raise click.UsageError("--resume takes everything from the bundle; only --image and --json go with it")
        with TerminalReporter() as reporter:
            _show(resume(resumed, image=image, reporter=reporter), resumed, as_json=as_json)
        return
    config = read_config(config_file) if config_file else {}
    if output is None:
        raise click.UsageError("--output is missing: the folder to make")
    spec = make_spec(config | flags)
    if dry:
        plan = dry_run(spec, output)
        _show_plan(plan, as_json=as_json)
        if not plan["plan"]["fits"]:
            raise SystemExit(DOES_NOT_FIT)
        return
    with TerminalReporter() as reporter:
        built = build(spec, output, reporter=reporter)
    _show(built, output, as_json=as_json)


def _show(built: Built, output: Path, *, as_json: bool) -> None:
    manifest = built.manifest
    for warning in manifest.warnings:
        click.echo(f"warning: {warning}", err=True)
    if manifest.profile_differences:
        differences = ", ".join(manifest.profile_differences)
        click.echo(f"note: not as published for {manifest.profile}: {differences}", err=True)
    if as_json:
        click.echo(manifest.to_json(), nl=False)
    else:
        click.echo(_summary(manifest, output))
    if built.blocked:
        click.echo(
            f"unfinished: {built.blocked}. Copy {output} to such a machine and finish it there with\n"
            f"  nemotron build-engine --resume {shlex.quote(str(output))}",
            err=True,
        )
        raise SystemExit(UNFINISHED)


def _summary(manifest: Manifest, output: Path) -> str:
    memory = manifest.memory
    lines = [
        f"{output}: {manifest.precision} for {manifest.gpu}, {memory.weights_bytes / 2**20:.1f} MiB of weights and "
        f"{memory.kv_cache_bytes / 2**20:.1f} MiB of KV cache for {manifest.max_batch_size} requests of "
        f"{manifest.max_seq_len} tokens at once"
    ]
    if quality := manifest.quality:
        lines.append(
            f"quality on {quality.tokens} held-out tokens: perplexity {quality.perplexity:.4g} "
            f"(source {quality.perplexity_source:.4g}), same best token {quality.top1_agreement:.1%}, "
            f"KL divergence {quality.kl_divergence_nats:.4g} nats"
        )
    if not manifest.ran_on_this_hardware:
        lines.append("not run on hardware: no engine of this kind was ever loaded by this project's tests")
    if manifest.state == "complete":
        lines.append(f"serve it with: nemotron serve {shlex.quote(str(output))}")
    return "\n".join(lines)


def _show_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(plan, indent=2))
        return
    for warning in plan["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    click.echo("settings:")
    for name, value in plan["config"].items():
        click.echo(f"  {name}: {json.dumps(value)}")
    for why in plan["plan"]["why"]:
        click.echo(f"why: {why}")
    fits = "fits" if plan["plan"]["fits"] else "does not fit"
    click.echo(f"memory: {fits}: {plan['plan']['reason']}")
    click.echo("stages:")
    for stage in plan["stages"]:
        click.echo(f"  {stage['name']}")
        for argv in stage["commands"]:
            click.echo(f"    $ {shlex.join(argv)}")
        if stage["blocked"]:
            click.echo(f"    not here: {stage['blocked']}")
