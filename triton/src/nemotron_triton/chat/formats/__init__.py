"""The tool-call formats: each is a module of this folder, found by its name, and has a class `Format`."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from nemotron_triton.chat.calls import CallFormat


@functools.cache
def format_names() -> tuple[str, ...]:
    """The formats there are, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@functools.cache
def call_format(name: str) -> CallFormat:
    """The format called *name*, one of `format_names`."""
    made: CallFormat = importlib.import_module(f"{__name__}.{name}").Format()
    return made
