"""What a model is made of: its dimensions, the tensors they imply, and what each tensor is for. Pure.

Two families are known: dense Llama and `nemotron_h`, a Mamba-2 hybrid. Everything else is refused by its model type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemotron_build.architecture.dimensions import Dimensions, Role, Weight
from nemotron_build.architecture.hybrid import HybridArchitecture, read_hybrid
from nemotron_build.architecture.llama import Architecture, RopeScaling, read_llama
from nemotron_build.errors import UnsupportedError

__all__ = [
    "MODEL_TYPES",
    "Architecture",
    "Dimensions",
    "HybridArchitecture",
    "Role",
    "RopeScaling",
    "Weight",
    "read_architecture",
]

MODEL_TYPES = (Architecture.model_type, HybridArchitecture.model_type)


def read_architecture(config: Mapping[str, Any], query_rows: int | None = None) -> Architecture | HybridArchitecture:
    """The architecture in a parsed `config.json`, or in a profile's `architecture`, which has the same names.

    *query_rows* is the number of rows of the first `q_proj`: where the file names no `head_dim`, that is where it is
    read from. `UnsupportedError` names a model type that is not known, `CheckpointError` the number that is wrong.
    """
    model_type = config.get("model_type")
    if model_type == Architecture.model_type:
        return read_llama(config, query_rows)
    if model_type == HybridArchitecture.model_type:
        return read_hybrid(config, query_rows)
    raise UnsupportedError(f"config.json has model_type {model_type!r}; known: {', '.join(MODEL_TYPES)}")
