"""The engine kinds, by name. The module of a kind is imported only when a bundle asks for it."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nemotron_triton.engine.interface import Engine

_ENGINES = {
    "cpu": "nemotron_triton.engine.cpu:CpuEngine",
    "tensorrt": "nemotron_triton.engine.tensorrt:TensorrtEngine",
    "pytorch": "nemotron_triton.engine.pytorch:PytorchEngine",
    "edge": "nemotron_triton.engine.edge:EdgeEngine",
}
KINDS = tuple(_ENGINES)


def engine_class(kind: str) -> type[Engine]:
    """The engine of *kind*, one of `KINDS`."""
    engine: type[Engine] = pkgutil.resolve_name(_ENGINES[kind])
    return engine
