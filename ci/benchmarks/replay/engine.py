"""An engine adapter that replays a recording as fast as it is read: what is left is the cost of everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

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
        self._running: dict[TokenStream, Iterator[int]] = {}
        self._generated = 0

    def generate(self, _ids: Sequence[int], sampling: Sampling, stream: TokenStream) -> None:
        """Replay `max_tokens` tokens; text alone where a seed is given."""
        if not self._running:
            asyncio.get_running_loop().call_soon(self._step)
        self._running[stream] = iter(recorded_ids(sampling.max_tokens, text_alone=sampling.seed is not None))

    def statistics(self) -> EngineStatistics:
        """What the service watches."""
        return EngineStatistics(
            active_requests=len(self._running), waiting_requests=0, generated_tokens=self._generated
        )

    def close(self) -> None:
        """Nothing is held."""

    def _step(self) -> None:
        for stream, ids in list(self._running.items()):
            if stream.cancelled or (token_id := next(ids, None)) is None:
                stream.put((), "stop")
                del self._running[stream]
            else:
                stream.put((token_id,))
                self._generated += 1
        if self._running:
            asyncio.get_running_loop().call_soon(self._step)
