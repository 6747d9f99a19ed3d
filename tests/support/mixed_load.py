"""A mixed load on a served demo model: streams, whole answers, tools, cancels and mistakes at once.

Every client has questions of its own, asked alone at first; afterwards each answer must be that one, to the letter.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest

from nemotron_client import Client, ClientError, ContentDelta, ReasoningDelta, Reply, RequestRejected

TOOLS = json.loads((Path(__file__).parents[2] / "build/demo/tools.json").read_text())
_MISTAKES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"max_tokens": 0}, "max_tokens is 0"),
    ({"temperature": -1.0}, "temperature is -1.0"),
    ({"tools": [{"type": "function"}]}, "tools[0] must be"),
    ({"tool_choice": {"type": "function", "function": {"name": "nobody"}}, "tools": TOOLS}, "nobody"),
)


@dataclass
class Report:
    """The counts of each kind of request, the errors, and the memory of each process over time."""

    requests: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    memory_bytes: dict[str, list[int]] = field(default_factory=dict)

    def growth(self) -> dict[str, float]:
        """How much more memory each process has at the end of the last half than at its beginning, as a ratio.

        Medians of an eighth of the samples each: one that is taken while a process forks is far off.
        """
        grown = {}
        for name, samples in self.memory_bytes.items():
            half, eighth = len(samples) // 2, len(samples) // 8
            before, after = samples[half : half + eighth], samples[-eighth:]
            grown[name] = statistics.median(after) / statistics.median(before) - 1
        return grown


class _Caller:
    """A client with two questions of its own and their answers."""

    def __init__(self, url: str, number: int, report: Report, lock: threading.Lock) -> None:
        self._client = Client(url, timeout_s=120)
        self._random = random.Random(number)  # noqa: S311 - a load, not a secret
        self._report = report
        self._lock = lock
        bill = 100 + 14 * number
        self._tip = [{"role": "user", "content": f"My bill is ${bill}. What will be the amount for 18% tip?"}]
        self._question = [{"role": "user", "content": f"What is an 18% tip on ${bill}?"}]
        self._answer = self._ask(self._question, thinking=True)
        self._called = self._ask(self._tip, tools=TOOLS, thinking=False)

    def run(self, until_s: float) -> None:
        """Send one request after another."""
        actions: list[tuple[str, Callable[[], None]]] = [
            ("stream", self._stream),
            ("whole", self._whole),
            ("tools", self._tools),
            ("cancel", self._cancel),
            ("mistake", self._mistake),
        ]
        with self._client:
            while time.monotonic() < until_s:
                name, action = self._random.choices(actions, weights=(35, 25, 15, 15, 10))[0]
                try:
                    action()
                except (ClientError, AssertionError, pytest.fail.Exception) as error:
                    self._note(name, f"{name}: {error!r}")
                else:
                    self._note(name)

    def _ask(self, messages: list[dict[str, Any]], **options: Any) -> Reply:
        return self._client.chat(messages, temperature=0.0, **options)

    def _stream(self) -> None:
        reply = Reply.of(self._client.stream(self._question, thinking=True, temperature=0.0))
        self._same(reply, self._answer)

    def _whole(self) -> None:
        self._same(self._ask(self._question, thinking=True), self._answer)

    def _tools(self) -> None:
        self._same(self._ask(self._tip, tools=TOOLS, thinking=False), self._called)

    def _cancel(self) -> None:
        stream = self._client.stream(self._question, thinking=True, temperature=0.0)
        seen = list(islice(stream, self._random.randrange(12)))
        stream.close()
        thought = "".join(event.text for event in seen if isinstance(event, ReasoningDelta))
        content = "".join(event.text for event in seen if isinstance(event, ContentDelta))
        assert (self._answer.reasoning or "").startswith(thought), thought
        assert (self._answer.content or "").startswith(content), content

    def _mistake(self) -> None:
        options, complaint = self._random.choice(_MISTAKES)
        with pytest.raises(RequestRejected, match=re.escape(complaint)):
            self._client.chat(self._question, **options)

    def _same(self, reply: Reply, expected: Reply) -> None:
        def parts(answer: Reply) -> Any:
            calls = [(call.name, call.arguments_json) for call in answer.tool_calls]
            return answer.reasoning, answer.content, calls, answer.finish_reason, answer.usage

        assert parts(reply) == parts(expected), f"{parts(reply)} is not {parts(expected)}"

    def _note(self, name: str, error: str | None = None) -> None:
        with self._lock:
            self._report.requests[name] += 1
            if error:
                self._report.errors.append(error)


def mixed_load(url: str, server_pid: int, *, seconds: float, callers: int = 64) -> Report:
    """Run the load for *seconds*, and measure the memory of tritonserver and its stubs 120 times."""
    report, lock = Report(), threading.Lock()
    clients = [_Caller(url, number, report, lock) for number in range(callers)]
    server = psutil.Process(server_pid)
    processes = {_name(process): process for process in (server, *server.children(recursive=True))}
    until_s = time.monotonic() + seconds
    with ThreadPoolExecutor(callers) as threads:
        ends = [threads.submit(client.run, until_s) for client in clients]
        while time.monotonic() < until_s:
            for name, process in processes.items():
                report.memory_bytes.setdefault(name, []).append(_own_bytes(process))
            time.sleep(min(seconds / 120, max(0.0, until_s - time.monotonic())))
        for end in ends:
            end.result()
    return report


def _name(process: psutil.Process) -> str:
    models = [argument.split("/")[-3] for argument in process.cmdline() if argument.endswith("/1/model.py")]
    return f"stub of {models[0]}" if models else process.name()


def _own_bytes(process: psutil.Process) -> int:
    """The memory that the process allocated, without pages of files, which other processes share."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))
