"""Stands in for `tensorrt_edgellm.runtime`, which loads the native module."""

import importlib
from types import ModuleType


def load() -> ModuleType:
    """The native module for this machine."""
    return importlib.import_module("tensorrt_edgellm.native")
