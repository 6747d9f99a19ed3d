"""`POST /v1/completions`: what the model writes after finished prompts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from nemotron_client import ClientError, Event
from nemotron_gateway.answering import Answering
from nemotron_gateway.client_errors import api_error
from nemotron_gateway.completion_request import AskedText, read_completion
from nemotron_gateway.completion_text import TextAnswer, TextChunks
from nemotron_gateway.exchange import Receive, Scope, Send
from nemotron_gateway.visit import visit_of

# Responses that wait for a caller who reads slowly.
_WAITING = 16
# Every field has the name of the client's option, or one that all routes share.
_FIELDS: dict[str, str] = {}


class Completions:
    """Raw ASGI, as chat completions."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answering, visit = self._answering, visit_of(scope)
        asked = read_completion(await answering.body(scope, receive))
        answering.check_fields(asked.unknown)
        async with answering.connected(receive):
            try:
                model = await answering.served.name(asked.model)
                completion_id, created = f"cmpl-{visit.request_id}", int(time.time())
                responses = self._responses(asked, visit.options())
                if asked.stream:
                    include_usage = bool(asked.stream_options.include_usage)
                    chunks = TextChunks(completion_id, created, model, include_usage=include_usage, n=asked.n)
                    await answering.stream(send, responses, chunks, _FIELDS, visit)
                else:
                    await answering.whole(send, responses, TextAnswer(completion_id, created, model, n=asked.n))
            except ClientError as error:
                raise api_error(error, _FIELDS) from error

    def _responses(self, asked: AskedText, visit: dict[str, str]) -> AsyncGenerator[Sequence[Event], None]:
        """The responses to every prompt; `choice` counts through all of them."""
        if len(asked.prompts) == 1:
            return self._of_one(asked, 0, visit)
        return _merged([self._of_one(asked, place, visit) for place in range(len(asked.prompts))])

    async def _of_one(
        self, asked: AskedText, place: int, visit: dict[str, str]
    ) -> AsyncGenerator[Sequence[Event], None]:
        first = place * asked.n
        options = {**asked.options, **visit}
        if len(asked.prompts) > 1:
            options["request_id"] = f"{visit['request_id'][:120]}-{place}"
        stream = self._answering.client.generate_stream(asked.prompts[place], **options)
        async with contextlib.aclosing(stream.responses()) as responses:
            async for events in responses:
                yield [replace(event, choice=first + event.choice) for event in events] if first else events


async def _merged(
    generators: Sequence[AsyncGenerator[Sequence[Event], None]],
) -> AsyncGenerator[Sequence[Event], None]:
    """What all *generators* yield, as it comes; the first error ends all."""
    queue: asyncio.Queue[Sequence[Event] | BaseException | None] = asyncio.Queue(_WAITING)

    async def feed(generator: AsyncGenerator[Sequence[Event], None]) -> None:
        try:
            async with contextlib.aclosing(generator):
                async for events in generator:
                    await queue.put(events)
        except ClientError as error:
            await queue.put(error)
        else:
            await queue.put(None)

    tasks = [asyncio.ensure_future(feed(generator)) for generator in generators]
    try:
        ended = 0
        while ended < len(tasks):
            item = await queue.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                ended += 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
