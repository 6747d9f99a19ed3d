"""What metrics, log and traces get to know of a request: no text of prompt or answer, unless that is to be logged."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from nemotron_client.events import Problem
from nemotron_triton.engine.interface import Sampling
from nemotron_triton.serving.answering import Prepared

Outcome = Literal["ok", "invalid", "denied", "throttled", "rejected", "cancelled", "deadline", "failed"]
# The outcomes of a request whose turn did not come.
_GIVEN_UP: tuple[Outcome, ...] = ("rejected", "cancelled", "deadline")


@dataclass(kw_only=True)
class RequestRecord:
    """One request, filled in as it goes; times are seconds on `time.monotonic`'s clock, None until they came.

    `outcome` is ok, invalid (the caller's mistake), denied (no secret, or a wrong one), throttled (the caller has all
    the requests it may have), rejected (no room, or waited too long), cancelled (the client went away), deadline (its
    time was up) or failed (ours). Tokens are counted over all `choices` of the request, and so are the `gaps` between
    two tokens of one answer, which took `gaps_s` together. `cached_tokens` are those of the prompt that every answer
    found in the KV cache, None where the engine does not tell. `admitted` is False when it was refused at once.
    """

    request_id: str
    # The name that goes with its secret; empty where no secrets are asked for, or it had none of them.
    caller: str = ""
    arrived_ns: int = field(default_factory=time.time_ns)
    arrived_s: float = field(default_factory=time.monotonic)
    started_s: float | None = None
    first_token_s: float | None = None
    first_answer_token_s: float | None = None
    ended_s: float | None = None
    gaps: int = 0
    gaps_s: float = 0.0
    admitted: bool = False
    outcome: Outcome = "failed"
    error: str = ""
    thinking: bool | None = None
    stream: bool | None = None
    choices: int = 1
    # What the engine was asked for.
    sampling: Sampling | None = None
    stop_words: tuple[str, ...] = ()
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    output_tokens: int = 0
    reasoning_tokens: int = 0
    responses: int = 0
    tool_calls: int = 0
    repairs: int = 0
    problems: list[Problem] = field(default_factory=list)
    finish_reasons: list[str] = field(default_factory=list)
    # The W3C trace context that came with the request.
    traceparent: str = ""
    # Whether the request was a conversation, or a finished prompt.
    operation: Literal["chat", "text_completion"] = "chat"
    # Kept only where the setting `log_text` asks for it.
    prompt_text: str | None = None
    answer_text: str | None = None

    def begin(self, prepared: Prepared, *, log_text: bool) -> None:
        """Note what is asked for, with its text if *log_text*."""
        request = prepared.request
        self.operation = "chat" if request.conversation else "text_completion"
        self.thinking = request.thinking
        self.stream = request.stream
        self.choices = request.choices
        self.sampling = prepared.sampling
        self.stop_words = request.stop_words
        self.prompt_tokens = len(prepared.ids)
        if log_text:
            self.prompt_text = prepared.prompt
            self.answer_text = ""

    def since_arrival(self, moment_s: float | None) -> float | None:
        """Seconds from the request's arrival to *moment_s*."""
        return None if moment_s is None else moment_s - self.arrived_s

    def add_tokens(self, tokens: int, first_s: float | None, last_s: float | None) -> None:
        """Count the *tokens* of one of the answers, the first and the last of which came at these times."""
        if first_s is None or last_s is None:
            return
        self.first_token_s = first_s if self.first_token_s is None else min(first_s, self.first_token_s)
        self.gaps += tokens - 1
        self.gaps_s += last_s - first_s

    def add_cached_tokens(self, tokens: int | None) -> None:
        """Note that one of the answers found *tokens* of the prompt in the KV cache."""
        if tokens is not None:
            # Of several answers to one request, the later ones find what the first has put there.
            self.cached_tokens = tokens if self.cached_tokens is None else min(tokens, self.cached_tokens)

    @property
    def queue_s(self) -> float | None:
        """How long it waited until the engine was asked, or in vain; None when it was refused at once or invalid."""
        if self.started_s is None and self.admitted and self.outcome in _GIVEN_UP:
            return self.since_arrival(self.ended_s)
        return self.since_arrival(self.started_s)

    @property
    def time_per_output_token_s(self) -> float | None:
        """The mean time between two tokens of one answer; None when there were no two."""
        return self.gaps_s / self.gaps if self.gaps else None
