"""A logits processor for TensorRT-LLM's LLM API: no end token before an answer has its least tokens.

TensorRT-LLM 1.2.1 holds back one end token only, whereas models have several, and its PyTorch sampler counts the prompt
as part of the answer (NVIDIA/TensorRT-LLM pull request 12166). The `pytorch` kind's worker process unpickles the
processor, so this module imports nothing of ours. Not run on hardware.

Limits. Each token of a request that asks for it costs a call into Python. The PyTorch executor overlaps its steps and
does not have the latest token yet (pull request 16785): there the end tokens are held back for one token more.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LeastTokens:
    """Holds back *end_ids* while an answer to a prompt of *prompt_tokens* has fewer than *least* tokens."""

    prompt_tokens: int
    least: int
    end_ids: frozenset[int]

    def __call__(
        self,
        _request_id: int,
        logits: Any,
        token_ids: Sequence[Sequence[int]],
        stream: int | None,
        _client_id: int | None,
    ) -> None:
        """Change *logits*, shape (1, beams, vocabulary), in place, on the CUDA stream at the address *stream*.

        *token_ids* has the prompt's and the answer's tokens of each beam, of which there is one here.
        """
        (tokens,) = token_ids
        if len(tokens) - self.prompt_tokens < self.least:
            with _on(stream):
                for token_id in self.end_ids:
                    logits[..., token_id] = float("-inf")


def _on(stream: int | None) -> AbstractContextManager[Any]:
    if stream is None:
        return contextlib.nullcontext()
    cuda = importlib.import_module("torch").cuda
    context: AbstractContextManager[Any] = cuda.stream(cuda.ExternalStream(stream))
    return context
