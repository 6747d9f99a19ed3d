"""Jobs for ModelOpt: starts `worker` in an environment of its own, and reads its progress and result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nemotron_build.errors import ToolError, UnsupportedError
from nemotron_build.precisions import KvPrecision, Precision
from nemotron_build.processes import Runner, run
from nemotron_build.quantization.environment import Environment
from nemotron_build.reporter import Reporter

WORKER = Path(__file__).with_name("worker.py")


def quantization(
    precision: Precision, kv: KvPrecision | None = None, *, block_size: int | None = None
) -> dict[str, Any]:
    """ModelOpt's words for *precision* and *kv*, by default 16 bit, as the worker takes them: it knows no precisions.

    *block_size* is for measuring with smaller blocks than the row's. `UnsupportedError` where ModelOpt has no word.
    """
    words = precision.modelopt
    if precision.quantized and words is None:
        raise UnsupportedError(f"ModelOpt has no word for {precision.name} in the table of precisions")
    quantizers: dict[str, Any] = dict(words.quantizers) if words else {}
    if kv and kv.modelopt:
        quantizers["*[kv]_bmm_quantizer"] = {"num_bits": kv.modelopt, "axis": None, "enable": True}
    return {
        "name": precision.name,
        "preset": words.preset if words else None,
        "quantizers": quantizers,
        "block_size": block_size or (precision.storage.block_size if words and words.any_block_size else None),
        "cuda_only": bool(words and words.cuda_only),
    }


def run_job(
    environment: Environment,
    job: str,
    settings: dict[str, Any],
    *,
    log: Path,
    reporter: Reporter,
    runner: Runner = run,
) -> Any:
    """Do *job* of `worker` with *settings* and give back its result; `ToolError` says in one line why it could not.

    What the libraries print is added to *log*, the settings stay beside it.
    """
    if not environment.folder().exists():
        reporter.note(f"making the environment {environment.name} (once, minutes): {environment.folder()}")
    python = environment.python(log=log, runner=runner)
    outcome: dict[str, Any] = {}

    def read(line: str) -> None:
        message = json.loads(line)
        if "done" in message:
            reporter.progress(message["done"], message["total"])
        else:
            outcome.update(message)

    file = log.with_suffix(".job.json")
    log.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"job": job, **settings}), encoding="utf-8")
    runner(worker_argv(python, file), log, on_line=read)
    if "result" not in outcome:
        raise ToolError(f"ModelOpt: {outcome.get('error', 'it ended without a word')}; the whole log is {log}")
    return outcome["result"]


def worker_argv(python: Path, job_file: Path) -> list[str]:
    """How the worker is started; `-I` keeps this environment's packages and the user's out of that one."""
    return [str(python), "-I", str(WORKER), str(job_file)]
