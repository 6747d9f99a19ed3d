"""How an engine is started: only where nothing speaks against its bundle."""

from __future__ import annotations

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.compatibility import check_loadable
from nemotron_triton.engine.interface import Engine
from nemotron_triton.engine.registry import engine_class


def start_engine(bundle: Bundle, codec: TokenCodec) -> Engine:
    """Load the engine of *bundle*; `BundleError` or `EngineError` says why not."""
    check_loadable(bundle)
    return engine_class(bundle.manifest.kind)(bundle, codec)
