"""How an engine is started: only where nothing speaks against its bundle, and it fits into memory."""

from __future__ import annotations

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.compatibility import check_loadable
from nemotron_triton.engine.interface import Engine, engine_class
from nemotron_triton.memory import check_memory


def start_engine(bundle: Bundle, codec: TokenCodec) -> Engine:
    """Load the engine of *bundle*; `BundleError` or `EngineError` says why not."""
    check_loadable(bundle)
    engine = engine_class(bundle.manifest.kind)
    check_memory(bundle.manifest, engine.free_memory(), engine.memory_of)
    return engine(bundle, codec)
