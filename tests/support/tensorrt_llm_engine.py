"""An engine of the LLM API on an invented machine: an H100, with a stand-in for TensorRT-LLM 1.2.1."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from contract import llm_arguments
from machines import H100, FakeNvml, install
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine, Sampling
from nemotron_triton.engine.start import start_engine
from nemotron_triton.engine.stream import TokenStream

STAND_IN = Path(__file__).parent / "tensorrt_llm_stand_in"
KINDS = ("tensorrt", "pytorch")
PLAIN = Sampling(max_tokens=20, temperature=0.5, top_p=0.9)
PROMPT = [1, 2, 3]
END, *OTHER_ENDS = ENDS = [1533, 1529, 1532]
SINGLE_PROCESS = "TLLM_WORKER_USE_SINGLE_PROCESS"


@contextmanager
def tensorrt_llm(site: Path) -> Iterator[ModuleType]:
    """`tensorrt_llm.llmapi`, installed in the folder *site*, and no longer imported afterwards."""
    install(site, "tensorrt_llm", "1.2.1")
    torch = ModuleType("torch")
    torch.__dict__.update(float32="float32", tensor=lambda values, dtype: (dtype, values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pynvml", FakeNvml(H100))
        # Set first, so that the values that an engine sets are removed again.
        patch.setenv(SINGLE_PROCESS, "")
        patch.delenv(SINGLE_PROCESS)
        patch.syspath_prepend(site)
        patch.syspath_prepend(STAND_IN)
        patch.setitem(sys.modules, "torch", torch)
        yield importlib.import_module("tensorrt_llm.llmapi")
        for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt_llm"]:
            del sys.modules[name]


def gpu_bundle(bundle: Bundle, folder: Path, kind: Any, **changes: Any) -> Bundle:
    """The demo's bundle as if it had been built for an H100."""
    shutil.copytree(bundle.path / "tokenizer", folder / "tokenizer")
    (folder / "engine").mkdir()
    (folder / "engine" / "config.json").write_text('{"version": "1.2.1"}')
    arguments = llm_arguments(kind, model="engine", tokenizer="tokenizer") | changes
    manifest = replace(
        bundle.manifest,
        kind=kind,
        gpu="h100",
        sm=90,
        requires_sm=89,
        precision="fp8",
        engine_file="engine",
        llm_args=arguments,
        tool_versions={"tensorrt_llm": "1.2.1"},
        plan={"architecture": {"vocab_size": 1536}},
    )
    return Bundle(folder, manifest)


def start(bundle: Bundle) -> tuple[Engine, Any]:
    """An engine, and the LLM of the stand-in behind it."""
    engine = start_engine(bundle, TokenCodec(bundle.tokenizer_path))
    return engine, sys.modules["tensorrt_llm.llmapi"].BaseLLM.started[-1]


def ask(engine: Engine, sampling: Sampling = PLAIN) -> TokenStream:
    stream = TokenStream(pace=lambda: 0.0)
    engine.generate(PROMPT, sampling, stream)
    return stream
