"""What is known of a request when it is over: for metrics, the log and traces.

Holds no text of prompt or answer unless it is to be logged.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from nemotron_client.events import Problem

Outcome = Literal["ok", "invalid", "rejected", "cancelled", "deadline", "failed"]


@dataclass(kw_only=True)
class RequestRecord:
    """One request, filled in as it goes; times are seconds on `time.monotonic`'s clock, None until they came.

    `outcome` is ok, invalid (the caller's mistake), rejected (no room, or waited too long), cancelled (the client went
    away), deadline (its time was up) or failed (ours). Tokens are counted over all `choices` of the request.
    """

    request_id: str
    arrived_ns: int = field(default_factory=time.time_ns)
    arrived_s: float = field(default_factory=time.monotonic)
    started_s: float | None = None
    first_token_s: float | None = None
    first_answer_token_s: float | None = None
    ended_s: float | None = None
    outcome: Outcome = "failed"
    error: str = ""
    thinking: bool | None = None
    stream: bool | None = None
    choices: int = 1
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    prompt_tokens: int = 0
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

    def since_arrival(self, moment_s: float | None) -> float | None:
        """Seconds from the request's arrival to *moment_s*."""
        return None if moment_s is None else moment_s - self.arrived_s

    @property
    def inter_token_latency_s(self) -> float | None:
        """The mean time between two tokens of one answer; None when there were no two."""
        gaps = self.output_tokens / self.choices - 1
        if self.first_token_s is None or self.ended_s is None or gaps <= 0:
            return None
        return (self.ended_s - self.first_token_s) / gaps
