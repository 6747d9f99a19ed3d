"""The log of the stub: JSON, one line for each finished request and for each other message of this package.

It goes to standard error, which ends in tritonserver's log. Nothing a caller sends can end a line or begin another:
what is not ASCII is escaped, and what a caller may make long is cut. A message about an invalid request quotes it, and
a model may have made up the name of a function, so both are text; without text the log has only the field of the
request, and the code of the problem.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import datetime, timezone
from typing import Any, TextIO

from nemotron_client import wire
from nemotron_triton.serving.record import RequestRecord

_PACKAGE = "nemotron_triton"
# The exporter of traces logs by itself; its lines shall have the same format.
_LOGGERS = (_PACKAGE, "opentelemetry")
_LEVELS = {"failed": logging.ERROR} | dict.fromkeys(("denied", "throttled", "rejected", "deadline"), logging.WARNING)
_MAX_ID, _MAX_NAME, _MAX_MESSAGE, _MAX_ITEMS, _MAX_TEXT = 128, 64, 300, 16, 16_384
# A tensor and the index of its entry: the part of a message about a request that no caller chose.
_FIELD = re.compile(rf"(?:{'|'.join(sorted(tensor.name for tensor in wire.INPUTS))})(?![a-z_])(?:\[\d{{1,9}}\])?")
_log = logging.getLogger(f"{_PACKAGE}.requests")


class JsonLines(logging.Formatter):
    """A log record as one line of JSON: time, level, event, then the message or the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in the record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        if isinstance(fields := getattr(record, "fields", None), dict):
            line |= {"event": record.getMessage()} | fields
        else:
            line |= {"event": "log", "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class RequestLog:
    """Takes over the package's log, and writes finished requests into it if *requests*, with their texts if *text*."""

    def __init__(self, *, requests: bool, text: bool, stream: TextIO | None = None) -> None:
        self._text = text
        self._handler = logging.StreamHandler(stream or sys.stderr)
        self._handler.setFormatter(JsonLines())
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(self._handler)
            logging.getLogger(name).propagate = False
        _log.setLevel(logging.INFO if requests else logging.CRITICAL)

    def request_ended(self, record: RequestRecord) -> None:
        """Write the line of *record*."""
        level = _LEVELS.get(record.outcome, logging.WARNING if record.problems else logging.INFO)
        if _log.isEnabledFor(level):
            _log.log(level, "request", extra={"fields": _fields(record, text=self._text)})

    def close(self) -> None:
        """Restore the package's log."""
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self._handler)
            logging.getLogger(name).propagate = True


def _fields(record: RequestRecord, *, text: bool) -> dict[str, Any]:
    quotes_text = record.outcome == "invalid" and not text
    field = _FIELD.match(record.error) if quotes_text else None
    fields = {
        "request_id": short(record.request_id, _MAX_ID),
        "caller": record.caller,
        "outcome": record.outcome,
        "error": None if quotes_text else short(record.error, _MAX_MESSAGE),
        "field": field[0] if field else None,
        "operation": record.operation,
        "thinking": record.thinking,
        "stream": record.stream,
        "choices": record.choices,
        "queue_ms": _ms(record.queue_s),
        "ttft_ms": _ms(record.since_arrival(record.first_token_s)),
        "first_answer_ms": _ms(record.since_arrival(record.first_answer_token_s)),
        "duration_ms": _ms(record.since_arrival(record.ended_s)),
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "output_tokens": record.output_tokens,
        "reasoning_tokens": record.reasoning_tokens,
        "responses": record.responses,
        "finish_reasons": record.finish_reasons[:_MAX_ITEMS],
        "tool_calls": record.tool_calls,
        "repairs": record.repairs,
        "problems": [
            {"code": problem.code} | ({"function": short(problem.function, _MAX_NAME)} if text else {})
            for problem in record.problems[:_MAX_ITEMS]
        ],
        "prompt": short(record.prompt_text or "", _MAX_TEXT) if text else None,
        "answer": short(record.answer_text or "", _MAX_TEXT) if text else None,
    }
    return {name: value for name, value in fields.items() if value not in (None, "", [])}


def short(text: str, limit: int) -> str:
    """*text*, cut to *limit* characters with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
