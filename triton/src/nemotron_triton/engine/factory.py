"""Which engine runs a bundle. Engines are imported only when a bundle asks for them."""

from __future__ import annotations

from nemotron_triton import compatibility
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine
from nemotron_triton.runtime import Runtime, read_runtime


def check_servable(bundle: Bundle) -> None:
    """Refuse a bundle that no machine can serve; whether this machine can is `check_loadable`."""
    compatibility.refuse(bundle, compatibility.check(bundle, None))


def check_loadable(bundle: Bundle, runtime: Runtime | None = None) -> None:
    """Refuse a bundle that cannot be loaded on the machine of *runtime*, by default this one."""
    compatibility.refuse(bundle, compatibility.check(bundle, runtime or read_runtime()))


def start_engine(bundle: Bundle, codec: TokenCodec) -> Engine:
    """Load the engine of *bundle*; `BundleError` or `EngineError` says why not."""
    check_loadable(bundle)
    if bundle.manifest.kind in ("tensorrt", "pytorch"):
        from nemotron_triton.engine.llm_api import LlmApiEngine

        return LlmApiEngine(bundle, codec)
    if bundle.manifest.kind == "edge":
        from nemotron_triton.engine.edge import EdgeEngine

        return EdgeEngine(bundle, codec)
    from nemotron_triton.engine.cpu import CpuEngine

    return CpuEngine(bundle, codec)
