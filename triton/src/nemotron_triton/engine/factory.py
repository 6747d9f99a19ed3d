"""Which engine runs a bundle. Engines are imported only when a bundle asks for them."""

from __future__ import annotations

from nemotron_triton import compatibility
from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine
from nemotron_triton.runtime import Runtime, read_runtime

KINDS = ("cpu",)


def check_kind(bundle: Bundle) -> None:
    """Refuse a bundle that no machine with this nemotron can serve; whether this machine can is `check_loadable`."""
    kind = compatibility.check_kind(bundle.manifest, KINDS)
    compatibility.refuse(bundle, [*compatibility.check_bundle(bundle), kind, *compatibility.check_engine(bundle)])


def check_loadable(bundle: Bundle, runtime: Runtime | None = None) -> None:
    """Refuse a bundle that cannot be loaded on the machine of *runtime*, by default this one."""
    compatibility.refuse(bundle, compatibility.check(bundle, runtime or read_runtime(KINDS)))


def start_engine(bundle: Bundle, codec: TokenCodec) -> Engine:
    """Load the engine of *bundle*; `BundleError` or `EngineError` says why not."""
    check_loadable(bundle)
    from nemotron_triton.engine.cpu import CpuEngine

    return CpuEngine(bundle, codec)
