"""What a server says of itself to who asks what it serves: the client's `Description`, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from nemotron_client.status import Description
from nemotron_triton.bundle import Bundle


def description(bundle: Bundle, *, context_tokens: int) -> str:
    """The description of *bundle*, in an engine with a context of *context_tokens*."""
    profile, manifest = bundle.profile, bundle.manifest
    served = Description(
        name=profile.name,
        names=(profile.repository, *profile.aliases),
        context_tokens=context_tokens,
        kind=manifest.kind,
        precision=manifest.precision,
        gpu=manifest.gpu,
        built_at=manifest.built_at,
    )
    return json.dumps(asdict(served), ensure_ascii=False)
