"""An hour of mixed load on the demo model: every answer is checked, and no process may grow.

    ci/bench soak --minutes 60 --bare

With --bare a second server gets the same requests, whose model does nothing: what grows there is tritonserver's own.
Exits with 1 when an answer was wrong, or memory grew by 1 % or more in the last half.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from mixed_load import Report, Target, mixed_load  # noqa: E402 - the suite's own load, for longer
from nemotron_build.engine import EngineSpec, build  # noqa: E402
from nemotron_triton.bundle import Bundle  # noqa: E402
from nemotron_triton.errors import ServerError  # noqa: E402
from nemotron_triton.server import RunningServer, ServeOptions, serve  # noqa: E402

_FIRST_PORT = 18010


def main() -> None:
    """Run it and print what happened."""
    parser = argparse.ArgumentParser(description="Mixed load on the demo model.")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--bare", action="store_true", help="the same requests also to a model that does nothing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        build(EngineSpec(checkpoint=ROOT / "build" / "demo" / "checkpoint", gpu="cpu"), Path(folder) / "bundle")
        bundle = Bundle.open(Path(folder) / "bundle")
        target = servers.enter_context(_serving(bundle, _FIRST_PORT))
        bare = None
        if arguments.bare:
            model = {"nemotron": ROOT / "tests" / "support" / "bare_model.py"}
            bare = servers.enter_context(_serving(bundle, _FIRST_PORT + 3, model))
        report = mixed_load(target, seconds=arguments.minutes * 60, callers=arguments.callers, bare=bare)
    _print(report, arguments.minutes)
    ours = {name: growth for name, growth in report.growth().items() if not name.startswith("bare: ")}
    if report.errors or any(growth >= 0.01 for growth in ours.values()):
        sys.exit(1)


@contextlib.contextmanager
def _serving(bundle: Bundle, port: int, adapters: Mapping[str, Path] = MappingProxyType({})) -> Iterator[Target]:
    """A server of *bundle* on *port* and the two after it, ready."""
    options = ServeOptions(http_port=port, grpc_port=port + 1, metrics_port=port + 2)
    log: deque[str] = deque(maxlen=200)
    with serve(bundle, options, log=log.append, adapters=adapters) as server:
        if not server.wait_ready(threading.Event()):
            sys.exit("the server was not ready")
        done = threading.Event()
        watcher = threading.Thread(target=_exit_with_server, args=(server, done, log), daemon=True)
        watcher.start()
        yield Target(options.grpc_url, server.pid)
        done.set()
        watcher.join()


def _print(report: Report, minutes: float) -> None:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.requests.most_common())
    sys.stdout.write(f"{report.requests.total():,} requests in {minutes:g} min: {kinds}\n")
    sys.stdout.write(f"{len(report.errors)} errors{''.join(chr(10) + '  ' + error for error in report.errors[:20])}\n")
    if report.bare_errors:
        errors = "".join(f"\n  {error}" for error in report.bare_errors[:20])
        sys.stdout.write(f"{len(report.bare_errors)} errors of the bare server{errors}\n")
    growth_bytes = report.growth_bytes()
    for name, growth in report.growth().items():
        samples = report.memory_bytes[name]
        eighths = " ".join(f"{samples[i * len(samples) // 8] / 2**20:.1f}" for i in range(8))
        sys.stdout.write(
            f"{name}: {growth:+.2%} in the last half, {growth_bytes[name]:+.1f} bytes a request; "
            f"MiB over time: {eighths}\n"
        )


def _exit_with_server(server: RunningServer, done: threading.Event, log: deque[str]) -> None:
    """End when the server ends by itself, with the last lines of its log."""
    try:
        server.wait(done)
    except ServerError as error:
        sys.stdout.write("\n".join([*log, f"{time.strftime('%H:%M:%S')} {error}"]) + "\n")
        sys.stdout.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
