"""What a very long prompt does to another request's stream, on a real tritonserver with the demo model.

One client streams tokens while another sends prompts of 182,000 tokens, which are rendered and tokenised before
the model refuses them as too long. Shown are the longest pauses between two events of the stream, with and without.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from nemotron_build.engine import EngineSpec, build
from nemotron_client import Client, RequestRejected
from nemotron_triton.bundle import Bundle
from nemotron_triton.server import ServeOptions, serve

CHECKPOINT = Path(__file__).parents[2] / "build" / "demo" / "checkpoint"
ROUNDS = 10
_WORDS = "The bill is 8887.81 dollars and the tip is 18 percent. "


def pauses_ms(client: Client) -> list[float]:
    """The times between two events of one long stream."""
    stream = client.stream([{"role": "user", "content": "What is the capital of France?"}], end_id=-1, max_tokens=1500)
    next(stream)
    pauses, last = [], time.perf_counter()
    for _ in stream:
        now = time.perf_counter()
        pauses.append((now - last) * 1e3)
        last = now
    return pauses


@contextlib.contextmanager
def long_prompts(client: Client, text: str) -> Iterator[list[float]]:
    """Send them one after another; the list gets the time each took, in seconds."""
    stop, took = threading.Event(), list[float]()

    def send() -> None:
        while not stop.is_set():
            begin = time.perf_counter()
            try:
                client.chat([{"role": "user", "content": text}])
            except RequestRejected as error:
                if "leaves no room" not in str(error):
                    raise
                took.append(time.perf_counter() - begin)

    thread = threading.Thread(target=send)
    thread.start()
    yield took
    stop.set()
    thread.join()


def main() -> None:
    """Measure both and print them."""
    with tempfile.TemporaryDirectory() as folder:
        build(EngineSpec(checkpoint=CHECKPOINT, gpu="cpu"), Path(folder) / "bundle")
        options = ServeOptions(http_port=18000, grpc_port=18001, metrics_port=18002)
        with (
            serve(Bundle.open(Path(folder) / "bundle"), options, log=lambda _: None) as server,
            Client("127.0.0.1:18001") as client,
        ):
            server.wait_ready(threading.Event())
            text = _WORDS * (400_000 // len(_WORDS))
            alone = [max(pauses_ms(client)) for _ in range(ROUNDS)]
            with long_prompts(client, text) as took:
                beside = [max(pauses_ms(client)) for _ in range(ROUNDS)]
    sys.stdout.write(
        f"longest pause in a stream of 1500 tokens, ms, median and worst of {ROUNDS}: "
        f"alone {statistics.median(alone):.1f} and {max(alone):.1f},\n"
        f"beside {len(took)} prompts of {len(text):,} characters "
        f"{statistics.median(beside):.1f} and {max(beside):.1f}\n"
        f"such a prompt was refused after {statistics.median(took):.2f} s\n"
    )


if __name__ == "__main__":
    main()
