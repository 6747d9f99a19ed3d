"""An engine of TensorRT Edge-LLM on an invented machine: a Jetson Thor, with a stand-in for version 0.11.0."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from machines import THOR, FakeNvml, install
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.render import Prompt
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine, Sampling
from nemotron_triton.engine.start import start_engine
from nemotron_triton.engine.stream import TokenStream
from patience import PATIENCE_S

STAND_IN = Path(__file__).parent / "edge_llm_stand_in"
PLAIN = Sampling(max_tokens=20, temperature=0.5, top_p=0.9)


@contextmanager
def edge_llm(site: Path) -> Iterator[ModuleType]:
    """The native module of the stand-in, installed in the folder *site*, and no longer imported afterwards."""
    install(site, "tensorrt_edgellm", "0.11.0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pynvml", FakeNvml(THOR))
        patch.syspath_prepend(site)
        patch.syspath_prepend(STAND_IN)
        yield importlib.import_module("tensorrt_edgellm.native")
        for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt_edgellm"]:
            del sys.modules[name]


def thor_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """The demo's bundle as if it had been built on a Jetson Thor, for one request at a time."""
    for name in ("tokenizer", "engine", "checkpoint"):
        shutil.copytree(bundle.path / "tokenizer", folder / name)
    (folder / "engine" / "llm.engine").write_bytes(b"")
    manifest = replace(
        bundle.manifest,
        kind="edge",
        gpu="jetson-thor",
        sm=110,
        precision="fp8",
        engine_file="engine",
        max_batch_size=1,
        tool_versions={"tensorrt-edgellm": "0.11.0"},
    )
    return Bundle(folder, manifest)


@dataclass
class Running:
    """An engine, and the stand-in's objects behind it."""

    engine: Engine
    native: Any
    codec: TokenCodec

    def ids(self, text: str, *control: str) -> list[int]:
        return self.codec.encode(Prompt(text, "\0", control or ("\1",)))

    def ask(self, sampling: Sampling = PLAIN, prompt: Sequence[int] = ()) -> TokenStream:
        stream = TokenStream(pace=lambda: 0.0)
        self.engine.generate(prompt or self.ids("What is 18% of 100?"), sampling, stream)
        return stream

    async def handle(self) -> Any:
        """The next request that reaches Edge-LLM."""
        return await asyncio.to_thread(self.native.handles.get, timeout=PATIENCE_S)


@contextmanager
def running_engine(thor: Bundle, native: ModuleType) -> Iterator[Running]:
    """The engine of *thor*, closed when the block ends."""
    codec = TokenCodec(thor.tokenizer_path)
    engine = start_engine(thor, codec)
    try:
        yield Running(engine, native.RequestEngine.started[-1], codec)
    finally:
        engine.close()
