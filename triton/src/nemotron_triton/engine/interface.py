"""What every engine offers, and the plain values that cross the seam. Knows no engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to pick tokens. The order is the Hugging Face one: penalties, temperature, top-k, top-p.

    `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 switch those off; `seed` None draws one. `grammar`, in GBNF,
    allows only the texts it describes.
    """

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int = 0
    seed: int | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    ignore_end: bool = False
    grammar: str | None = None


@dataclass(frozen=True)
class TokenChunk:
    """The next tokens of one answer, and why it ended if it did; an end token is not among `ids`."""

    ids: tuple[int, ...]
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, kw_only=True)
class EngineStatistics:
    """What the engine is doing, and has done since it started."""

    active_requests: int
    waiting_requests: int
    generated_tokens: int
    cancelled_requests: int


class Engine(Protocol):
    """One loaded model. All methods are called on one event loop."""

    @property
    def max_seq_len(self) -> int:
        """Prompt and answer of one request together, tokens."""
        ...

    def generate(self, ids: Sequence[int], sampling: Sampling, request_id: str) -> AsyncGenerator[TokenChunk, None]:
        """Generate after *ids*; only the last chunk has a finish reason. Raises `EngineError`."""
        ...

    def cancel(self, request_id: str) -> None:
        """Stop that request soon; its iterator ends with `cancelled`. Unknown ids are ignored."""
        ...

    def statistics(self) -> EngineStatistics:
        """Counters for metrics and tests."""
        ...

    def close(self) -> None:
        """Stop everything and free the memory."""
        ...
