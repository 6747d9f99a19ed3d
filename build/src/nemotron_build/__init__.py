"""Checkpoint to engine bundle."""
