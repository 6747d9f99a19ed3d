"""A mixed load on a served demo model: streams, whole answers, tools, cancels and mistakes at once.

Every client has questions of its own, asked alone at first; afterwards each answer must be that one, to the letter.
With a second server, of `bare_model`, it gets the same requests, each with as many responses, so that what grows in
tritonserver and in the Python backend by itself can be told from what is ours.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest

from nemotron_client import Client, ClientError, ContentDelta, ReasoningDelta, Reply, RequestRejected

TOOLS = json.loads((Path(__file__).parents[2] / "build/demo/tools.json").read_text())
# The responses of an answer that nobody reads to its end.
_LONG = 50
_MISTAKES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"max_tokens": 0}, "max_tokens is 0"),
    ({"temperature": -1.0}, "temperature is -1.0"),
    ({"tools": [{"type": "function"}]}, "tools[0] must be"),
    ({"tool_choice": {"type": "function", "function": {"name": "nobody"}}, "tools": TOOLS}, "nobody"),
)


@dataclass
class Report:
    """The counts of each kind of request, the errors, and over time the number of requests and each process' memory.

    `bare_errors` are those of the bare server.
    """

    requests: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    bare_errors: list[str] = field(default_factory=list)
    memory_bytes: dict[str, list[int]] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)

    def growth(self) -> dict[str, float]:
        """How much more memory each process has at the end of the last half than at its beginning, as a ratio."""
        return {name: after / before - 1 for name, (before, after) in self._last_half().items()}

    def growth_bytes(self) -> dict[str, float]:
        """By how many bytes each process grew for each request of the last half."""
        before, after = _ends(self.done)
        return {name: (end - begin) / (after - before) for name, (begin, end) in self._last_half().items()}

    def _last_half(self) -> dict[str, tuple[float, float]]:
        return {name: _ends(samples) for name, samples in self.memory_bytes.items()}


def _ends(samples: list[int]) -> tuple[float, float]:
    """The first and the last value of the second half of *samples*.

    Medians of an eighth of the samples each: one that is taken while a process forks is far off.
    """
    half, eighth = len(samples) // 2, len(samples) // 8
    return statistics.median(samples[half : half + eighth]), statistics.median(samples[-eighth:])


@dataclass(frozen=True)
class Target:
    """A server under load: the URL of its gRPC endpoint and tritonserver's process id."""

    url: str
    pid: int


class _Caller:
    """A client with two questions of its own and their answers, and one of the bare server, if there is one."""

    def __init__(self, target: Target, bare: Target | None, number: int, report: Report, lock: threading.Lock) -> None:
        self._client = Client(target.url, timeout_s=120)
        self._bare = Client(bare.url, timeout_s=120) if bare else None
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
        with self._client, self._bare or contextlib.nullcontext():
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
        events = list(self._client.stream(self._question, thinking=True, temperature=0.0))
        self._same(Reply.of(iter(events)), self._answer)
        self._repeat(self._question, responses=len(events))

    def _whole(self) -> None:
        self._same(self._ask(self._question, thinking=True), self._answer)
        self._repeat(self._question)

    def _tools(self) -> None:
        self._same(self._ask(self._tip, tools=TOOLS, thinking=False), self._called)
        self._repeat(self._tip, tools=TOOLS)

    def _cancel(self) -> None:
        read = self._random.randrange(12)
        stream = self._client.stream(self._question, thinking=True, temperature=0.0)
        seen = list(islice(stream, read))
        stream.close()
        with self._mirroring() as bare:
            if bare:
                mirrored = bare.stream(self._question, max_tokens=_LONG)
                list(islice(mirrored, read))
                mirrored.close()
        thought = "".join(event.text for event in seen if isinstance(event, ReasoningDelta))
        content = "".join(event.text for event in seen if isinstance(event, ContentDelta))
        assert (self._answer.reasoning or "").startswith(thought), thought
        assert (self._answer.content or "").startswith(content), content

    def _mistake(self) -> None:
        options, complaint = self._random.choice(_MISTAKES)
        with pytest.raises(RequestRejected, match=re.escape(complaint)):
            self._client.chat(self._question, **options)
        with self._mirroring() as bare:
            if bare:
                with pytest.raises(RequestRejected, match="max_tokens is 0"):
                    bare.chat(self._question, max_tokens=0)

    def _repeat(self, messages: list[dict[str, Any]], *, responses: int = 1, **options: Any) -> None:
        """Send the bare server a request that it answers with *responses*."""
        with self._mirroring() as bare:
            if bare:
                Reply.of(bare.stream(messages, max_tokens=responses, **options))

    @contextlib.contextmanager
    def _mirroring(self) -> Iterator[Client | None]:
        """The client of the bare server, if there is one; its errors are not those of ours."""
        try:
            yield self._bare
        except (ClientError, pytest.fail.Exception) as error:
            with self._lock:
                self._report.bare_errors.append(f"{time.strftime('%H:%M:%S')} {error!r}")

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


def mixed_load(target: Target, *, seconds: float, callers: int = 64, bare: Target | None = None) -> Report:
    """Run the load for *seconds*, and measure the memory of each tritonserver and its stubs 120 times."""
    report, lock = Report(), threading.Lock()
    clients = [_Caller(target, bare, number, report, lock) for number in range(callers)]
    processes = _processes(target, "") | (_processes(bare, "bare: ") if bare else {})
    until_s = time.monotonic() + seconds
    with ThreadPoolExecutor(callers) as threads:
        ends = [threads.submit(client.run, until_s) for client in clients]
        while time.monotonic() < until_s:
            report.done.append(report.requests.total())
            for name, process in processes.items():
                report.memory_bytes.setdefault(name, []).append(_own_bytes(process))
            time.sleep(min(seconds / 120, max(0.0, until_s - time.monotonic())))
        for end in ends:
            end.result()
    return report


def _processes(target: Target, prefix: str) -> dict[str, psutil.Process]:
    server = psutil.Process(target.pid)
    return {prefix + _name(process): process for process in (server, *server.children(recursive=True))}


def _name(process: psutil.Process) -> str:
    models = [argument.split("/")[-3] for argument in process.cmdline() if argument.endswith("/1/model.py")]
    return f"stub of {models[0]}" if models else process.name()


def _own_bytes(process: psutil.Process) -> int:
    """The memory that the process allocated, without pages of files, which other processes share."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))
