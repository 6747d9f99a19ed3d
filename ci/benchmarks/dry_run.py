"""What a dry run of a build of the 4B's size costs, beside the shortest command: `ci/bench dry_run`.

The checkpoint has the real shapes and no contents (sparse files of zeros), so nothing but its headers can be read.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from checkpoints import write_sparse_checkpoint  # noqa: E402 - found through the line above
from nemotron_triton.chat.profiles import DEFAULT_PROFILE, profile  # noqa: E402

_TURNS = 5
# Between this process and the measured one: a new process begins with the peak memory of the one that starts it.
_LAUNCHER = """
import os, sys, time
started = time.perf_counter()
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(time.perf_counter() - started, usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def measure(arguments: list[str]) -> tuple[float, int]:
    """Seconds and peak KiB of one run of `nemotron`."""
    argv = [sys.executable, "-S", "-c", _LAUNCHER, sys.executable, "-m", "nemotron_cli", *arguments]
    run = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603 - our own command
    if run.returncode:
        raise SystemExit(f"nemotron {' '.join(arguments)} failed: {run.stderr}")
    seconds, peak_kib = run.stderr.split()[-2:]
    return float(seconds), int(peak_kib)


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
