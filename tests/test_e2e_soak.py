"""Two minutes of everything at once; `ci/bench soak` is the same for as long as wanted."""

from __future__ import annotations

import threading

import pytest

from conftest import serve_options
from mixed_load import mixed_load
from nemotron_triton.bundle import Bundle
from nemotron_triton.server import serve

SECONDS = 120
# The first half is for the allocators to find their size, and in the second they may not be done yet: `ci/bench soak`
# holds 1 % over an hour.
GROWTH = 0.03


@pytest.mark.timeout(SECONDS + 120)
def test_mixed_load_gives_everyone_their_own_answer_and_grows_no_process(bundle: Bundle) -> None:
    options = serve_options()
    with serve(bundle, options, log=lambda _: None) as server:
        assert server.wait_ready(threading.Event())

        report = mixed_load(options.grpc_url, server.pid, seconds=SECONDS)

    assert report.errors == []
    assert min(report.requests[kind] for kind in ("stream", "whole", "tools", "cancel", "mistake")) > 10
    assert len(report.memory_bytes) >= 4
    assert {name: growth for name, growth in report.growth().items() if growth >= GROWTH} == {}
