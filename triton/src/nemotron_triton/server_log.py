"""The log of a tritonserver and its models: what of it is worth reading, and the reason that it gives for an end.

Triton's lines begin with level and date (`E1201 11:24:02`), those of the models do not.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from nemotron_triton.readiness import MODEL

_TABLE = re.compile(r"[|+]|\s*$")
# Level I but for models that are loaded and unloaded, the failure that is meant to be, and what is logged on every
# machine without a GPU.
_CHATTER = re.compile(
    rf"[IE]\d{{4}} .*(?:'{MODEL}'|loading: {MODEL}:)"
    r"|I\d{4} (?!.*model_lifecycle)|Signal \(\d+\) received|.*CudaDriverHelper has not been initialized"
    r"|W\d{4} .*pinned memory pool will not be available: CUDA driver version"
)
# What our own code says on purpose: `serving/guardian.py`.
_OURS = re.compile(r"^nemotron: (.+)")
_NOT_LOADED = re.compile(
    r"failed to load '(\w+)' version \d+: (?:Internal: )?(?:TritonModelException: )?(.+?)(?:\\n|\"?$)"
)
_UNHEALTHY = re.compile(r"Stub process '\w+' is not healthy")
_SERVER_FAILURE = re.compile(r"^error: (?!creating server: Internal - failed to load all models)(.+)")
_LEVEL_E = re.compile(r"^E\d{4} [^]]*\] \"?(.+?)\"?$")
# Of tracebacks, of exceptions and of crashes.
_TRACES = (" ", "At:", "Thread 0x", "Current thread 0x", "Fatal Python error", "Python runtime state")
_MEMORY = "was there too little memory? `dmesg` says whether the kernel ended it"


def is_table(line: str) -> bool:
    """Whether *line* is of a table or empty: settings and models, as tritonserver prints them at start."""
    return _TABLE.match(line) is not None


def is_chatter(line: str) -> bool:
    """Whether nobody needs *line* of a server that is all right."""
    return is_table(line) or _CHATTER.match(line) is not None


def reason_of_death(lines: Sequence[str], status: int) -> str:
    """Why a server ended with *status*, negative for a signal, from the last *lines* of its log."""
    if own := _last(_OURS, lines):
        return own
    if status == -signal.SIGKILL:
        return _MEMORY
    failures = {match[1]: match[2] for line in lines if not is_chatter(line) and (match := _NOT_LOADED.search(line))}
    # The text models fail with the engine's, and rarely say more.
    if failures:
        failure = failures.get("nemotron") or next(iter(failures.values()))
        return f"the model's Python process died; {_MEMORY}" if _UNHEALTHY.search(failure) else failure
    kept = [line for line in lines if not is_chatter(line)]
    return (
        _last(_SERVER_FAILURE, kept)
        or _last(_LEVEL_E, kept)
        or next((line for line in reversed(kept) if not line.startswith(_TRACES)), "its log is empty")
    )


def _last(pattern: re.Pattern[str], lines: Sequence[str]) -> str | None:
    return next((match[1] for line in reversed(lines) if (match := pattern.search(line))), None)
