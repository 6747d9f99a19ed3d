"""`nemotron build-engine`."""

from __future__ import annotations

from pathlib import Path

import click

from nemotron_build.cli.progress import TerminalReporter
from nemotron_build.engine import DEFAULT_PRECISION, GPUS, EngineSpec, build
from nemotron_build.gguf_file import PRECISIONS
from nemotron_triton.chat.profiles import DEFAULT_PROFILE, profile_names


@click.command("build-engine")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--gpu", required=True, metavar="GPU", help=f"What the engine will run on: {', '.join(GPUS)}.")
@click.option(
    "--precision",
    default=EngineSpec.precision,
    show_default=True,
    metavar="P",
    help=f"Weights: {', '.join(PRECISIONS)}. auto is {DEFAULT_PRECISION} on cpu.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder to make; it must not exist.")
@click.option(
    "--model",
    "profile",
    default=DEFAULT_PROFILE,
    show_default=True,
    metavar="NAME",
    help=f"Whose prompt and tool formats it speaks: {', '.join(profile_names())}.",
)
@click.option(
    "--max-seq-len", type=int, help="Prompt and answer together, tokens. Default: the checkpoint's, at most 8192."
)
@click.option(
    "--max-batch-size",
    type=int,
    default=EngineSpec.max_batch_size,
    show_default=True,
    help="Requests generated for at once; more wait.",
)
@click.option(
    "--chat-template", type=click.Path(path_type=Path), help="Jinja file to render prompts with, instead of ours."
)
@click.option("--json", "as_json", is_flag=True, help="Print the bundle's manifest on stdout.")
def command(
    checkpoint: Path,
    gpu: str,
    precision: str,
    output: Path,
    profile: str,
    max_seq_len: int | None,
    max_batch_size: int,
    chat_template: Path | None,
    as_json: bool,
) -> None:
    """Build an engine bundle from CHECKPOINT, a Hugging Face checkpoint folder.

    The bundle is a folder with the engine, the tokenizer and a manifest with the digest of every file. It appears
    when it is complete; an interrupted build leaves nothing behind.
    """
    spec = EngineSpec(
        checkpoint=checkpoint,
        gpu=gpu,
        precision=precision,
        profile=profile,
        max_seq_len=max_seq_len,
        max_batch_size=max_batch_size,
        chat_template=chat_template,
    )
    with TerminalReporter() as reporter:
        manifest = build(spec, output, reporter=reporter)
    if manifest.profile_differences:
        click.echo(f"note: not as published for {profile}: {', '.join(manifest.profile_differences)}", err=True)
    if as_json:
        click.echo(manifest.to_json(), nl=False)
    else:
        memory = manifest.memory
        click.echo(
            f"{output}: {manifest.precision} for {manifest.gpu}, {memory.weights_bytes / 2**20:.1f} MiB of weights and "
            f"{memory.kv_cache_bytes / 2**20:.1f} MiB of KV cache for {manifest.max_batch_size} requests of "
            f"{manifest.max_seq_len} tokens at once\nserve it with: nemotron serve {output}"
        )
