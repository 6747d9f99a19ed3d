"""Stands in for `tensorrt_edgellm.runtime`, the way to the native module."""

import importlib
from types import ModuleType


def load() -> ModuleType:
    """The module that fits this machine."""
    return importlib.import_module("tensorrt_edgellm.native")
