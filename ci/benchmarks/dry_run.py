"""What a dry run of a build of the 4B's size costs, beside the shortest command: `ci/bench dry_run`.

The checkpoint has the real shapes and no contents (sparse files of zeros), so nothing but its headers can be read.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from checkpoints import write_sparse_checkpoint  # noqa: E402 - found through the line above
from nemotron_triton.chat.profiles import DEFAULT_PROFILE, profile  # noqa: E402

_TURNS = 5


def measure(arguments: list[str]) -> tuple[float, int]:
    """Seconds and peak KiB of one run of `nemotron`."""
    started = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "nemotron_cli", *arguments], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"nemotron {' '.join(arguments)} ended with status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, usage.ru_maxrss


def main() -> None:
    """Print the median of some runs of each, taken in turns."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        write_sparse_checkpoint(checkpoint, ROOT / "build/demo/checkpoint", dict(profile(DEFAULT_PROFILE).architecture))
        build = ["build-engine", str(checkpoint), "--gpu", "h100", "--precision", "fp8", "--output", f"{folder}/bundle"]
        commands = {"nemotron --version": ["--version"], "a dry run of the 4B": [*build, "--dry-run"]}
        runs = [{name: measure(arguments) for name, arguments in commands.items()} for _ in range(_TURNS)]
    sys.stdout.write("| command | seconds | MB |\n|---|---|---|\n")
    for name in commands:
        seconds, peak = zip(*(run[name] for run in runs), strict=True)
        middle = _TURNS // 2
        sys.stdout.write(f"| {name} | {sorted(seconds)[middle]:.2f} | {sorted(peak)[middle] / 1000:.0f} |\n")


if __name__ == "__main__":
    main()
