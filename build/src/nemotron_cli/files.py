"""Input files of commands, read with limits; whatever is wrong with one is a single line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

MAX_FILE_BYTES = 16 * 1024 * 1024


def read_text(path: Path) -> str:
    """The text of a UTF-8 file; `-` is stdin."""
    try:
        with click.open_file(str(path), encoding="utf-8", errors="strict") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    if len(text) > MAX_FILE_BYTES:
        raise click.ClickException(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, the most that is read")
    return str(text)


def read_json_list(path: Path, what: str, read: Callable[[str], Any] = json.loads) -> list[Any]:
    """The JSON list in a file of *what*, a plural, as *read* has it."""
    try:
        value = read(read_text(path))
    except (ValueError, RecursionError) as error:
        raise click.ClickException(f"{path} is not JSON: {error}") from error
    if not isinstance(value, list):
        raise click.ClickException(f"{path} must hold a JSON list of {what}")
    return value


def read_messages(
    system: str | None, file: Path | None, question: str | None, read: Callable[[str], Any] = json.loads
) -> list[Any]:
    """The conversation that a command's options make: instructions, earlier messages (by *read*), the question."""
    messages: list[Any] = [{"role": "system", "content": system}] if system else []
    if file:
        messages += read_json_list(file, "messages", read)
    if question:
        messages.append({"role": "user", "content": question})
    if not messages:
        raise click.UsageError("give a QUESTION or --messages FILE")
    return messages
