"""`python -m nemotron_cli` is the `nemotron` command."""

from nemotron_cli import main

main(prog_name="nemotron")
