"""The guide libraries of PyPI, in an environment of their own that is kept: they match texts with grammars of ours."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from conftest import CHECKPOINT
from environments import Environment
from nemotron_build.locks import locked
from nemotron_build.quantization.environment import cache_folder
from nemotron_triton.atomic import atomic_folder
from nemotron_triton.engine.interface import Guide
from nemotron_triton.engine.xgrammar import guide_text

# xgrammar is that of TensorRT-LLM 1.2.1. Without torch and transformers, which it wants for what is not used here.
_PINS = ["xgrammar==0.1.25", "llguidance==1.9.1", "numpy==1.26.4", "pydantic==2.12.5", "pydantic-core==2.41.5",
         "annotated-types==0.7.0", "typing-extensions==4.15.0", "typing-inspection==0.4.2"]  # fmt: skip
_PROGRAM = Path(__file__).with_name("guide_program.py")
LIBRARIES = {"xgrammar": [str(CHECKPOINT / "tokenizer.json")], "llguidance": []}


def python() -> Path:
    """The Python of the environment, which is made where it is missing (some 30 MB)."""
    digest = hashlib.sha256(repr((_PINS, sys.base_prefix, sys.version_info[:2])).encode()).hexdigest()[:12]
    folder = cache_folder() / "environments" / f"guides-{digest}"
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            with atomic_folder(folder, partial=folder.with_name(f"{folder.name}.partial")) as partial:
                made = Environment.make(partial, Path(sys.executable)).install("--quiet", "--no-deps", *_PINS)
                assert made.returncode == 0, made.stderr
    return folder / "bin" / "python"


def verdicts(library: str, grammars: Sequence[tuple[str, Sequence[str]]]) -> list[list[bool]]:
    """Of each grammar of ours and its texts, which of them *library* accepts; XGrammar gets it as its engines do."""
    if library == "xgrammar":
        grammars = [(guide_text(Guide(kind="grammar", text=grammar)), texts) for grammar, texts in grammars]
    lines = "".join(json.dumps({"grammar": grammar, "texts": list(texts)}) + "\n" for grammar, texts in grammars)
    argv: list[str | Path] = [python(), "-I", _PROGRAM, library, *LIBRARIES[library]]
    ran = subprocess.run(argv, input=lines, capture_output=True, text=True, check=False, timeout=240)
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]
