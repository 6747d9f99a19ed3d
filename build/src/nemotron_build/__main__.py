"""`python -m nemotron_build` is the `nemotron` command."""

from nemotron_build.cli import main

main(prog_name="nemotron")
