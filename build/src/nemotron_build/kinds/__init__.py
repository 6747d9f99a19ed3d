"""The engine kinds, a file each. This list is what they are known by: the first that runs on a GPU is its default."""

from __future__ import annotations

from nemotron_build.errors import SettingError
from nemotron_build.kinds.cpu import Cpu
from nemotron_build.kinds.edge import Edge
from nemotron_build.kinds.pytorch import Pytorch
from nemotron_build.kinds.tensorrt import Tensorrt
from nemotron_build.stages.kind import EngineKind

__all__ = ["KINDS", "KIND_NAMES", "EngineKind", "find_kind"]

KINDS: tuple[EngineKind, ...] = (Tensorrt(), Pytorch(), Edge(), Cpu())
KIND_NAMES = tuple(kind.name for kind in KINDS)


def find_kind(name: str) -> EngineKind:
    """The kind called *name*; `SettingError` lists the names."""
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise SettingError(f"--engine-kind {name} does not exist; known: {', '.join(KIND_NAMES)}")
