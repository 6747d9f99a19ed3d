"""The tool-call formats, a module each with a class `Format`; the module's name is the format's."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from nemotron_triton.chat.calls import CallFormat


def format_names() -> tuple[str, ...]:
    """The names of the formats, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@functools.cache
def call_format(name: str) -> CallFormat:
    """The format called *name*, one of `format_names`."""
    instance: CallFormat = importlib.import_module(f"{__name__}.{name}").Format()
    return instance
