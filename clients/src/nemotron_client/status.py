"""What a client reports of its servers: whether they can answer, and what they serve."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EndpointHealth:
    """One server: `live` when it runs, `ready` when it and its model say that they are; `problem` is why it is not."""

    url: str
    live: bool
    ready: bool
    problem: str = ""


@dataclass(frozen=True)
class Health:
    """Every server of a client; `ready` when at least one can answer."""

    endpoints: tuple[EndpointHealth, ...]

    @property
    def ready(self) -> bool:
        """Whether a request would be answered."""
        return any(endpoint.ready for endpoint in self.endpoints)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model of the server: its versions, and the names of the tensors it takes and gives."""

    name: str
    versions: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a server serves: the model's `name`, and all `names` it is also known by, its hub id among them.

    `context_tokens` is the room for a prompt and its answer together. `kind` is of the engine; `built_at` is when the
    bundle was built, in ISO 8601.
    """

    name: str
    names: tuple[str, ...]
    context_tokens: int
    kind: str
    precision: str
    gpu: str
    built_at: str


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the model gets to read for a conversation: the text, and its token ids."""

    text: str
    token_ids: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """How many tokens of the context it takes."""
        return len(self.token_ids)


def unready(*, server: bool, model: bool) -> str:
    """Why a server is not ready, by what it and its model say; empty where both are.

    One that stops is not, long before its model is.
    """
    return "" if server and model else "the server is not ready" if model else "the model is not ready"
