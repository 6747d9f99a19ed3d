"""What becomes of requests is told by a thread of its own, however slow those are who are told."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from nemotron_triton.bundle import Bundle
from nemotron_triton.engine.interface import EngineStatistics
from nemotron_triton.serving.call import Call
from nemotron_triton.serving.observation import Observation
from nemotron_triton.serving.record import RequestRecord
from nemotron_triton.serving.requests import Requests
from patience import wait_until

ENGINE: Any = SimpleNamespace(
    statistics=lambda: EngineStatistics(active_requests=0, waiting_requests=0, generated_tokens=0)
)


class Observers:
    """Takes records; one that waits until it may go on is a log that nobody reads."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.records: list[RequestRecord] = []
        self.asked = self.closed = False

    def update(self, ended: list[RequestRecord], *_: object) -> None:
        if ended:
            self.asked = True
            self.go.wait(30)
        self.records += ended

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def these(bundle: Bundle) -> Requests:
    return Requests(bundle.manifest.memory, slots=1, queue=1)


def end(these: Requests, count: int) -> None:
    pb_utils: Any = None
    for _ in range(count):
        call = Call(None, pb_utils)
        these.begin(call)
        these.end(call)


def test_every_request_is_told_before_the_end(these: Requests) -> None:
    observers = Observers()
    observers.go.set()
    observation = Observation(these, ENGINE, observers)  # type: ignore[arg-type]

    end(these, 1000)
    observation.close()

    assert len(observers.records) == 1000
    assert observers.closed


def test_a_log_that_nobody_reads_holds_up_no_request_and_fills_no_memory(
    these: Requests, caplog: pytest.LogCaptureFixture
) -> None:
    observers = Observers()
    observation = Observation(these, ENGINE, observers)  # type: ignore[arg-type]

    end(these, 1)
    wait_until(lambda: observers.asked)
    end(these, 10_000)
    observers.go.set()
    observation.close()

    assert 4000 < len(observers.records) < 5000
    assert "requests are neither logged nor counted" in caplog.text
