"""What `stream` returns: events to iterate over, whose request is cancelled when they are not read on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, Generic, TypeVar

EventT = TypeVar("EventT")


class RunningCall:
    """The gRPC call that a stream reads now, for another thread to end."""

    def __init__(self) -> None:
        self._call: Any = None
        self._cancelled = False

    def begin(self, call: Any) -> Any:
        """Take *call*, and cancel it at once if its stream was cancelled before."""
        self._call = call
        if self._cancelled:
            call.cancel()
        return call

    def cancel(self) -> None:
        """Cancel it and those after it; whoever reads it gets an error."""
        self._cancelled = True
        if self._call is not None:
            self._call.cancel()


class Stream(Generic[EventT]):
    """The events of an answer as they arrive; the last one is `Finish`.

    Nothing is sent before the first event is asked for. The request is cancelled at the server when the loop over the
    stream is left, when its `with` block ends, or by `close`; not by `next`, which reads one event. `request_id` is the
    request's name in the server's log, where it is one request.
    """

    def __init__(
        self, events: Generator[EventT, None, None], request_id: str = "", running: RunningCall | None = None
    ) -> None:
        self._events = events
        self._running = running or RunningCall()
        self.request_id = request_id

    def __iter__(self) -> Iterator[EventT]:
        # A generator of its own, which a `break` drops and so closes, also where the stream is still referenced.
        with self:
            yield from self._events

    def __next__(self) -> EventT:
        return next(self._events)

    def __enter__(self) -> Stream[EventT]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the request, unless its answer is complete; there are no more events then.

        Where another thread waits for the next event, that one gets `StreamBroken`.
        """
        try:
            self._events.close()
        except ValueError:  # it is being read
            self._running.cancel()


class AsyncStream(Generic[EventT]):
    """The events of an answer as they arrive; the last one is `Finish`. As `Stream`, for `async for`."""

    def __init__(self, events: AsyncGenerator[EventT, None], request_id: str = "") -> None:
        self._events = events
        self.request_id = request_id

    async def __aiter__(self) -> AsyncIterator[EventT]:
        # A generator of its own, which a `break` drops and the event loop closes, also where the stream is referenced.
        try:
            async for event in self._events:
                yield event
        finally:
            await self.close()

    async def __anext__(self) -> EventT:
        return await self._events.__anext__()

    async def __aenter__(self) -> AsyncStream[EventT]:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel the request, unless its answer is complete; there are no more events then."""
        await self._events.aclose()
