"""What a machine must have to build or serve engines of some kind, beside what every kind needs."""

from __future__ import annotations

from enum import Enum, auto
from typing import Literal

Verb = Literal["build", "serve"]
VERBS: tuple[Verb, ...] = ("build", "serve")


class Need(Enum):
    """One such thing; what stands for it on a machine is `doctor`'s to know."""

    GPU = auto()
    GGUF = auto()
    LLAMA_CPP = auto()
    TRTLLM_BUILD = auto()
    TRTLLM_ENGINES = auto()
    LLM_API = auto()
    EDGE_LLM = auto()
