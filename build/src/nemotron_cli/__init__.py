"""The `nemotron` command: parses, calls, prints. Every error a user can cause is one line and exit status 1."""

from nemotron_cli.main import main

__all__ = ["main"]
