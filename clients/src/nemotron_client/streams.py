"""What `stream` returns: events to iterate over, whose request is cancelled when they are not read on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from typing import Any, Generic, TypeVar

EventT = TypeVar("EventT")


class RunningCall:
    """The gRPC call that a stream reads now, for another thread or task to end; `cancelled` is whether one has."""

    def __init__(self) -> None:
        self._call: Any = None
        self.cancelled = False

    def begin(self, call: Any) -> Any:
        """Take *call*, and cancel it at once if its stream was cancelled before."""
        self._call = call
        if self.cancelled:
            call.cancel()
        return call

    def cancel(self) -> None:
        """Cancel it and those after it; whoever reads it gets an error."""
        self.cancelled = True
        if self._call is not None:
            self._call.cancel()


class Stream(Generic[EventT]):
    """The events of an answer as they arrive; the last one is `Finish`.

    Nothing is sent before the first event is asked for. The request is cancelled at the server when the loop over the
    stream is left, when its `with` block ends, or by `close`; not by `next`, which reads one event. `request_id` is the
    request's name in the server's log, where it is one request.
    """

    def __init__(
        self,
        responses: Generator[Sequence[EventT], None, None],
        request_id: str = "",
        running: RunningCall | None = None,
    ) -> None:
        self._responses = responses
        self._running = running or RunningCall()
        # Those of the response that was read last.
        self._events: Iterator[EventT] = iter(())
        self.request_id = request_id

    def __iter__(self) -> Iterator[EventT]:
        # A generator of its own, which a `break` drops and so closes, also where the stream is still referenced.
        with self:
            yield from self._events
            for events in self._responses:
                self._events = iter(events)
                yield from self._events

    def __next__(self) -> EventT:
        while True:
            for event in self._events:
                return event
            self._events = iter(next(self._responses))

    def responses(self) -> Iterator[Sequence[EventT]]:
        """The same events, together as they came: all that a response brought, in order and of one `choice`.

        For programs that pass them on, and write once for each response.
        """
        with self:
            # What `next` has left of the last response.
            if left := list(self._events):
                yield left
            for events in self._responses:
                if events:
                    yield events

    def __enter__(self) -> Stream[EventT]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the request, unless its answer is complete; there are no more events then.

        Where another thread waits for the next event, that one gets `StreamBroken`.
        """
        self._events = iter(())
        try:
            self._responses.close()
        except ValueError:  # it is being read
            self._running.cancel()


class AsyncStream(Generic[EventT]):
    """The events of an answer as they arrive; the last one is `Finish`. As `Stream`, for `async for`."""

    def __init__(
        self,
        responses: AsyncGenerator[Sequence[EventT], None],
        request_id: str = "",
        running: RunningCall | None = None,
    ) -> None:
        self._responses = responses
        self._running = running or RunningCall()
        self._events: Iterator[EventT] = iter(())
        self.request_id = request_id

    async def __aiter__(self) -> AsyncIterator[EventT]:
        # A generator of its own, which a `break` drops and the event loop closes, also where the stream is referenced.
        try:
            for event in self._events:
                yield event
            async for events in self._responses:
                self._events = iter(events)
                for event in self._events:
                    yield event
        finally:
            await self.close()

    async def __anext__(self) -> EventT:
        while True:
            for event in self._events:
                return event
            self._events = iter(await self._responses.__anext__())

    async def responses(self) -> AsyncGenerator[Sequence[EventT], None]:
        """The same events, together as they came: all that a response brought, in order and of one `choice`.

        For programs that pass them on, and write once for each response.
        """
        try:
            if left := list(self._events):
                yield left
            async for events in self._responses:
                if events:
                    yield events
        finally:
            await self.close()

    async def __aenter__(self) -> AsyncStream[EventT]:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel the request, unless its answer is complete; there are no more events then.

        Where another task waits for the next event, that one gets `StreamBroken`.
        """
        self._events = iter(())
        try:
            await self._responses.aclose()
        except RuntimeError:  # it is being read
            self._running.cancel()
