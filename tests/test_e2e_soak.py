"""A minute of mixed load; `ci/bench soak` runs it for longer."""

from __future__ import annotations

import pytest

from mixed_load import Target, mixed_load
from nemotron_triton.bundle import Bundle
from running import running

SECONDS = 60
# The first half is for the allocators to find their size, and in the second they may not be done yet: of few requests,
# as on a busy machine, both were seen alone. `ci/bench soak` holds 1 % over an hour.
GROWTH, GROWTH_BYTES = 0.015, 2000


@pytest.mark.timeout(SECONDS + 120)
def test_mixed_load_gives_everyone_their_own_answer_and_grows_no_process(bundle: Bundle) -> None:
    with running(bundle) as served:
        report = mixed_load(Target(served.options.grpc_url, served.server.pid), seconds=SECONDS)

    assert report.errors == []
    assert min(report.requests[kind] for kind in ("stream", "whole", "tools", "cancel", "mistake")) > 10
    assert len(report.memory_bytes) >= 4
    ratios, per_request = report.growth(), report.growth_bytes()
    grown = {name for name in ratios if ratios[name] >= GROWTH and per_request[name] >= GROWTH_BYTES}
    assert not grown, (ratios, per_request)
