"""Checkpoint to engine bundle, and the `nemotron` command."""
