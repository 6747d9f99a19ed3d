"""Which engine runs a bundle. Engines are imported only when a bundle asks for them."""

from __future__ import annotations

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine
from nemotron_triton.errors import BundleError

KINDS = ("cpu",)


def check_kind(bundle: Bundle) -> None:
    """Refuse a bundle this build of nemotron has no engine for."""
    manifest = bundle.manifest
    if manifest.kind not in KINDS:
        sm = f" (SM {manifest.sm})" if manifest.sm else ""
        raise BundleError(
            f"the bundle {bundle.path} was built for {manifest.gpu}{sm} as a {manifest.kind} engine; this one runs "
            f"{', '.join(KINDS)}. Build one here with `nemotron build-engine CHECKPOINT --gpu cpu`"
        )


def start_engine(bundle: Bundle, codec: TokenCodec) -> Engine:
    """Load the engine of *bundle*; `BundleError` or `EngineError` says why not."""
    check_kind(bundle)
    from nemotron_triton.engine.cpu import CpuEngine

    return CpuEngine(bundle, codec)
