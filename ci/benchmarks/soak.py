"""An hour of mixed load on the demo model: every answer is checked, and no process may grow.

    ci/bench soak --minutes 60

Exits with 1 when an answer was wrong, or memory grew by 1 % or more in the last half.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from mixed_load import mixed_load  # noqa: E402 - the suite's own load, for longer
from nemotron_build.engine import EngineSpec, build  # noqa: E402
from nemotron_triton.bundle import Bundle  # noqa: E402
from nemotron_triton.errors import ServerError  # noqa: E402
from nemotron_triton.server import RunningServer, ServeOptions, serve  # noqa: E402


def main() -> None:
    """Run it and print what happened."""
    parser = argparse.ArgumentParser(description="Mixed load on the demo model.")
    parser.add_argument("--minutes", type=float, default=60)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        build(EngineSpec(checkpoint=ROOT / "build" / "demo" / "checkpoint", gpu="cpu"), Path(folder) / "bundle")
        options = ServeOptions(http_port=18010, grpc_port=18011, metrics_port=18012)
        log: deque[str] = deque(maxlen=200)
        with serve(Bundle.open(Path(folder) / "bundle"), options, log=log.append) as server:
            if not server.wait_ready(threading.Event()):
                sys.exit("the server was not ready")
            threading.Thread(target=_exit_with_server, args=(server, log), daemon=True).start()
            report = mixed_load(options.grpc_url, server.pid, seconds=minutes * 60)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.requests.most_common())
    sys.stdout.write(f"{sum(report.requests.values()):,} requests in {minutes:g} min: {kinds}\n")
    sys.stdout.write(f"{len(report.errors)} errors{''.join(chr(10) + '  ' + error for error in report.errors[:20])}\n")
    for name, growth in report.growth().items():
        samples = report.memory_bytes[name]
        eighths = " ".join(f"{samples[i * len(samples) // 8] / 2**20:.1f}" for i in range(8))
        sys.stdout.write(f"{name}: {growth:+.2%} in the last half; MiB over time: {eighths}\n")
    if report.errors or any(growth >= 0.01 for growth in report.growth().values()):
        sys.exit(1)


def _exit_with_server(server: RunningServer, log: deque[str]) -> None:
    """End when the server ends by itself, with the last lines of its log."""
    try:
        server.wait(threading.Event())
    except ServerError as error:
        sys.stdout.write("\n".join([*log, f"{time.strftime('%H:%M:%S')} {error}"]) + "\n")
        sys.stdout.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
