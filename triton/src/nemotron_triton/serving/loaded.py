"""What stays the same while a model is loaded, for metrics and traces: which bundle it is, and how much it can do."""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_triton import bundle as bundles
from nemotron_triton.bundle import Bundle
from nemotron_triton.engine.interface import Engine
from nemotron_triton.runtime import installed_version
from nemotron_triton.serving.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """One loaded bundle. `bundle_digest` is the SHA-256 of its manifest, which has those of its files.

    `kv_tokens_per_block` and `kv_blocks` are None where the KV cache has no blocks; their number is the build's plan.
    """

    profile: str
    gpu: str
    precision: str
    kind: str
    bundle_digest: str
    version: str
    max_active_requests: int
    max_waiting_requests: int
    kv_tokens_per_block: int | None = None
    kv_blocks: int | None = None

    @classmethod
    def of(cls, bundle: Bundle, engine: Engine, settings: Settings) -> Loaded:
        """The *bundle* in *engine*, with *settings*."""
        manifest, block = bundle.manifest, engine.kv_tokens_per_block
        memory = manifest.memory
        return cls(
            profile=manifest.profile,
            gpu=manifest.gpu,
            precision=manifest.precision,
            kind=manifest.kind,
            bundle_digest=bundles.digest(bundle.path / bundles.MANIFEST),
            version=installed_version("nemotron-triton") or "",
            max_active_requests=engine.max_batch_size,
            max_waiting_requests=settings.max_queue_requests,
            kv_tokens_per_block=block,
            kv_blocks=block and memory.kv_cache_bytes // max(1, memory.kv_bytes_per_token * block),
        )

    def identity(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The values of *labels*, which are names of the fields that are text."""
        return tuple(str(getattr(self, label)) for label in labels)
