"""The log of the stub, into which no caller can write lines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from nemotron_client.events import Problem
from nemotron_triton.serving.record import RequestRecord
from nemotron_triton.serving.request_log import RequestLog

Start = Callable[..., tuple[RequestLog, io.StringIO]]


@pytest.fixture
def start() -> Iterator[Start]:
    logs: list[RequestLog] = []

    def start(*, requests: bool = True, text: bool = False) -> tuple[RequestLog, io.StringIO]:
        stream = io.StringIO()
        logs.append(RequestLog(requests=requests, text=text, stream=stream))
        return logs[-1], stream

    yield start
    for log in logs:
        log.close()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_finished_request_is_one_line(start: Start) -> None:
    log, stream = start()
    record = RequestRecord(
        request_id="order-17",
        arrived_s=100.0,
        started_s=100.0012,
        first_token_s=100.25,
        first_answer_token_s=100.5,
        ended_s=101.0,
        outcome="ok",
        prompt_tokens=20,
        cached_tokens=16,
        output_tokens=7,
        finish_reasons=["tool_calls"],
        tool_calls=1,
        repairs=1,
    )

    log.request_ended(record)

    (line,) = lines(stream)
    time = datetime.fromisoformat(line.pop("time"))
    assert time.utcoffset() == timedelta(0)
    assert line == {
        "level": "info",
        "event": "request",
        "request_id": "order-17",
        "outcome": "ok",
        "operation": "chat",
        "choices": 1,
        "queue_ms": 1.2,
        "ttft_ms": 250.0,
        "first_answer_ms": 500.0,
        "duration_ms": 1000.0,
        "prompt_tokens": 20,
        "cached_tokens": 16,
        "output_tokens": 7,
        "reasoning_tokens": 0,
        "responses": 0,
        "finish_reasons": ["tool_calls"],
        "tool_calls": 1,
        "repairs": 1,
    }


@pytest.mark.parametrize(
    "request_id",
    [
        'a\n{"event": "request"}',
        "\x1b[2J\x1b[31mred",
        "‮txet ‏\u2028next",
        "\ud800",
        '"}',
        "a\x00b\r\x85\x7fc",
        "é" * 100_000,
    ],
)
def test_a_hostile_id_is_one_short_line_and_read_back_as_it_was(start: Start, request_id: str) -> None:
    log, stream = start()

    log.request_ended(RequestRecord(request_id=request_id))

    (line,) = lines(stream)
    written = stream.getvalue()
    assert written.isascii()
    assert written.rstrip("\n").isprintable()
    assert len(written) < 4096
    assert line["request_id"].rstrip("…") == request_id[: len(line["request_id"].rstrip("…"))]


def test_text_is_written_only_where_it_is_asked_for(start: Start) -> None:
    text = "my PIN is 1234"
    record = RequestRecord(
        request_id="a",
        outcome="ok",
        prompt_text=text,
        answer_text=text,
        problems=[Problem(code="truncated_tool_call", function="f" * 1000, text=text)],
    )
    quiet, without = start()
    quiet.request_ended(record)
    quiet.close()
    talkative, with_text = start(text=True)
    talkative.request_ended(record)

    (bare,), (full,) = lines(without), lines(with_text)
    assert text not in without.getvalue()
    assert bare["problems"] == [{"code": "truncated_tool_call"}]
    assert full["problems"] == [{"code": "truncated_tool_call", "function": "f" * 63 + "…"}]
    assert bare["level"] == "warning"
    assert (full["prompt"], full["answer"]) == (text, text)


def test_prompts_and_answers_are_cut(start: Start) -> None:
    log, stream = start(text=True)

    log.request_ended(RequestRecord(request_id="a", prompt_text="p" * 6_000_000, answer_text="a" * 6_000_000))

    (line,) = lines(stream)
    assert len(stream.getvalue()) < 40_000
    assert (line["prompt"], line["answer"]) == ("p" * 16_383 + "…", "a" * 16_383 + "…")


@pytest.mark.parametrize(
    ("error", "field"),
    [
        ('messages[3].content[0] must be text, got {"type": "input_text", "text": "PIN 1234"}', "messages[3]"),
        ('messages[1].tool_calls[0].function.arguments is not JSON (line 1): "{PIN 1234"', "messages[1]"),
        ("chat_template_kwargs has PIN 1234; nemotron-3-nano-4b knows enable_thinking", "chat_template_kwargs"),
        ("tools_of_mine[3] PIN 1234", None),
        ("PIN 1234 messages[0]", None),
    ],
)
def test_what_is_wrong_with_a_request_is_quoted_only_where_text_is_logged(
    start: Start, error: str, field: str | None
) -> None:
    record = RequestRecord(request_id="a", outcome="invalid", error=error)
    quiet, without = start()
    quiet.request_ended(record)
    quiet.close()
    talkative, with_text = start(text=True)
    talkative.request_ended(record)

    (bare,), (full,) = lines(without), lines(with_text)
    assert "PIN" not in without.getvalue()
    assert ("error" in bare, bare.get("field")) == (False, field)
    assert (full["error"], "field" in full) == (error, False)


def test_requests_can_be_left_out_and_the_rest_stays(start: Start) -> None:
    log, stream = start(requests=False)

    log.request_ended(RequestRecord(request_id="a", outcome="failed"))
    logging.getLogger("nemotron_triton.serving.service").warning("still here")

    assert [line["event"] for line in lines(stream)] == ["log"]


def test_other_messages_are_lines_of_the_same_shape_with_the_traceback_in_one_field(start: Start) -> None:
    _, stream = start()

    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("nemotron_triton.engine.cpu").exception("request %r failed", "a\nb")

    (line,) = lines(stream)
    assert (line["level"], line["event"], line["logger"]) == ("error", "log", "nemotron_triton.engine.cpu")
    assert line["message"] == r"request 'a\nb' failed"
    assert line["traceback"].endswith("ValueError: first\nsecond")


def test_a_closed_log_gives_the_loggers_back(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    log, stream = start()
    log.close()

    logging.getLogger("nemotron_triton.serving.service").warning("after the end")

    assert stream.getvalue() == ""
    assert "after the end" in caplog.text
