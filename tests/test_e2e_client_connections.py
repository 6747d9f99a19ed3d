"""The clients and the ports, connections and secrets of real servers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from black_hole import black_hole
from nemotron_client import Client, ServerUnavailable, UserMessage
from nemotron_triton.server import ServeOptions

CAPITAL = [UserMessage("What is the capital of France?")]


@pytest.mark.parametrize("port", ["http_port", "metrics_port"])
def test_the_other_ports_of_a_server_are_not_grpc(served: ServeOptions, port: str) -> None:
    url = f"127.0.0.1:{getattr(served, port)}"

    with Client(url, max_retries=0) as client, pytest.raises(ServerUnavailable) as caught:
        client.chat(CAPITAL)

    assert str(caught.value).startswith(f"{url} cannot be reached: that is not gRPC, but HTTP or something else;")
    assert "8001" in str(caught.value)


def test_requests_to_a_black_hole_are_answered_elsewhere_within_8_s(served: ServeOptions) -> None:
    port = int(served.grpc_url.rpartition(":")[2])
    with (
        black_hole(port) as hole,
        Client([served.grpc_url, hole.url], balance="round_robin", timeout_s=60) as client,
    ):
        for _ in range(2):
            client.chat(CAPITAL, thinking=False)
        hole.open()
        begin = time.monotonic()
        with ThreadPoolExecutor(4) as threads:
            replies = list(threads.map(lambda _: client.chat(CAPITAL, thinking=False), range(4)))
        took_s = time.monotonic() - begin

    assert all("Paris" in str(reply.content) for reply in replies)
    assert max(reply.retries for reply in replies) == 1
    assert took_s < 8


def test_looking_twenty_times_a_second_offends_no_server(served: ServeOptions) -> None:
    with Client(served.grpc_url, keepalive_s=0.05, max_retries=0, timeout_s=60) as client:
        answered = client.chat(CAPITAL, thinking=False, end_id=-1, max_tokens=600)
        time.sleep(0.5)
        again = client.chat(CAPITAL, thinking=False)

    assert (answered.usage.output_tokens, again.retries) == (600, 0)
