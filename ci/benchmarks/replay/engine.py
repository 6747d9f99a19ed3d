"""An engine adapter that replays a recording as fast as it is read: what is left is the cost of everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from recording import recorded_ids

from nemotron_triton.bundle import Bundle
from nemotron_triton.chat.tokens import TokenCodec
from nemotron_triton.engine.interface import Engine, EngineStatistics, Sampling
from nemotron_triton.engine.stream import TokenStream

_CONTEXT_TOKENS = 131_072


class ReplayEngine(Engine):
    """One token for every running answer at each turn of the event loop, as a batch's decode step gives."""

    max_seq_len = _CONTEXT_TOKENS
    max_batch_size = 1024
    cannot: Mapping[str, str] = {}

    def __init__(self, _bundle: Bundle, _codec: TokenCodec) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._generated = 0

    def generate(self, _ids: Sequence[int], sampling: Sampling, stream: TokenStream) -> None:
        """Replay `max_tokens` tokens; text alone where a seed is given."""
        ids = recorded_ids(sampling.max_tokens, text_alone=sampling.seed is not None)
        task = asyncio.get_running_loop().create_task(self._replay(ids, stream))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def statistics(self) -> EngineStatistics:
        """What the service watches."""
        return EngineStatistics(
            active_requests=len(self._running), waiting_requests=0, generated_tokens=self._generated
        )

    def close(self) -> None:
        """Nothing is held."""

    async def _replay(self, ids: list[int], stream: TokenStream) -> None:
        for token_id in ids:
            if stream.cancelled:
                return
            stream.put((token_id,))
            self._generated += 1
            await asyncio.sleep(0)
        stream.put((), "stop")
