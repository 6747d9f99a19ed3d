"""One of two servers leaves under load: behind a real Envoy, and with our client alone, nobody notices."""

from __future__ import annotations

import collections
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from envoy import envoy, install
from nemotron_client import Client, ClientError, Finish
from nemotron_triton.bundle import Bundle
from patience import wait_until
from served import Served, served_by_command

pytestmark = pytest.mark.envoy

HELLO = [{"role": "user", "content": "What is the capital of France?"}]
CALLERS = 8
_log = logging.getLogger(__name__)


@dataclass
class Load:
    """What callers saw who ask without a pause until `end` is set."""

    answers: int = 0
    retries: int = 0
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    end: threading.Event = field(default_factory=threading.Event, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def call(self, client: Client, number: int) -> None:
        """Ask for a long answer, then for three short ones, and so on."""
        while not self.end.is_set():
            number += 1
            try:
                retries = self._ask(client, max_tokens=8 if number % 4 else 1500)
            except ClientError as error:
                with self.lock:
                    self.errors[f"{type(error).__name__}: {error}"] += 1
                    self.retries += error.retries
            else:
                with self.lock:
                    self.answers += 1
                    self.retries += retries

    @staticmethod
    def _ask(client: Client, max_tokens: int) -> int:
        *_, last = client.stream(HELLO, end_id=-1, max_tokens=max_tokens)
        assert isinstance(last, Finish)
        assert last.usage.output_tokens == max_tokens
        return last.retries

    @property
    def seen(self) -> tuple[int, dict[str, int]]:
        """Retries, and errors with how often each came."""
        return self.retries, dict(self.errors)


@contextmanager
def under_load(client: Client) -> Iterator[Load]:
    load = Load()
    with ThreadPoolExecutor(CALLERS) as threads:
        callers = [threads.submit(load.call, client, number) for number in range(CALLERS)]
        try:
            wait_until(lambda: load.answers >= 2 * CALLERS)
            yield load
        finally:
            load.end.set()
    for caller in callers:
        caller.result()


@contextmanager
def two_servers(bundle: Bundle, drain_delay_ms: int) -> Iterator[tuple[Served, Served]]:
    flags = (f"--drain-delay-ms={drain_delay_ms}", "--drain-ms=60000", "--no-text-models", "--quiet")
    with served_by_command(bundle.path, *flags) as first, served_by_command(bundle.path, *flags) as second:
        yield first, second


def leave(served: Served, load: Load) -> int:
    """The exit status of *served* when it was told to leave; then the load goes on for a while."""
    served.process.send_signal(signal.SIGTERM)
    status = served.process.wait(timeout=120)
    answers = load.answers
    wait_until(lambda: load.answers >= answers + 2 * CALLERS)
    return status


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("envoy") / "environment", Path(sys.executable))


def test_a_server_behind_envoy_leaves_and_no_caller_sees_it(bundle: Bundle, program: Path, tmp_path: Path) -> None:
    with (
        two_servers(bundle, drain_delay_ms=5000) as (leaving, staying),
        envoy(program, tmp_path, [leaving.options.grpc_port, staying.options.grpc_port]) as url,
        Client(url, timeout_s=120) as client,
        under_load(client) as load,
    ):
        status = leave(leaving, load)

    _log.info("behind Envoy: %s", load)
    assert status == 0
    assert load.seen == (0, {})


def test_a_server_of_a_client_of_two_leaves_and_no_caller_sees_it(bundle: Bundle) -> None:
    with (
        two_servers(bundle, drain_delay_ms=5000) as (leaving, staying),
        Client([leaving.options.grpc_url, staying.options.grpc_url], timeout_s=120) as client,
        under_load(client) as load,
    ):
        status = leave(leaving, load)

    _log.info("a client of two: %s", load)
    assert status == 0
    assert load.seen == (0, {})
