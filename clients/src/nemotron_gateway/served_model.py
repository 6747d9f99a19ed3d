"""What the servers serve, and the names by which a request may ask for it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from nemotron_client import AccessDenied, AsyncClient, ClientError, Description, RequestRejected
from nemotron_gateway.errors import ApiError
from nemotron_gateway.settings import Settings

# A reload of the server may change what it serves.
_FRESH_S = 10.0
_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Served:
    """What a server said that it serves, and the model's *names*, the one it answers with first."""

    description: Description
    names: tuple[str, ...]
    folded_names: frozenset[str]

    def entries(self, created: int) -> list[dict[str, Any]]:
        """The model under each of its names, as OpenAI's list has it."""
        return [
            {
                "id": name,
                "object": "model",
                "created": created,
                "owned_by": "nvidia",
                "root": self.description.name,
                "max_model_len": self.description.context_tokens,
            }
            for name in self.names
        ]


class ServedModel:
    """Asks the server what it serves, and keeps that for a while."""

    def __init__(self, client: AsyncClient, settings: Settings) -> None:
        self._client = client
        self._own_names = settings.served_model_names
        self._any_name = settings.any_model
        self._known: Served | None = None
        self._known_at_s = 0.0
        self._asking: asyncio.Task[Served] | None = None

    async def served(self) -> Served:
        """What is served; what was known a moment ago is good enough.

        Raises `ClientError` or `ApiError` where nothing is known.
        """
        if self._known and time.monotonic() < self._known_at_s + _FRESH_S:
            return self._known
        if not self._asking:
            # One for all that wait, who may leave.
            self._asking = asyncio.ensure_future(self._ask())
            self._asking.add_done_callback(_looked_at)
        return self._known if self._known else await asyncio.shield(self._asking)

    async def name(self, asked: str | None) -> str:
        """The name to answer with to a request that asks for *asked*; `ApiError` where no model has it."""
        served = await self.served()
        if asked is None or self._any_name or asked.lower() in served.folded_names:
            return served.names[0]
        raise ApiError(
            404,
            f"no model is named {asked!r:.200}; there is {', '.join(served.names)}",
            code="model_not_found",
            param="model",
        )

    async def _ask(self) -> Served:
        try:
            description = await self._client.describe(timeout_s=_TIMEOUT_S)
        except AccessDenied:
            raise
        except RequestRejected as error:
            raise ApiError(502, "the server is older than this gateway; update it", code="bad_gateway") from error
        finally:
            self._asking = None
        names = tuple(dict.fromkeys([*self._own_names, description.name, *description.names]))
        known = self._known = Served(description, names, frozenset(map(str.lower, names)))
        self._known_at_s = time.monotonic()
        return known


def _looked_at(task: asyncio.Task[Served]) -> None:
    # What nobody waited for is no error.
    if not task.cancelled() and not isinstance(task.exception(), ClientError | ApiError | None):
        raise task.exception()  # type: ignore[misc]
