"""The client for programs with an event loop: the twin of `client.py`, which differs in what is awaited."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from nemotron_client import outgoing
from nemotron_client._base import BaseClient
from nemotron_client.async_servers import AsyncServers
from nemotron_client.attempts import Attempts
from nemotron_client.cancellation import asked_to_stop
from nemotron_client.endpoints import Attempt
from nemotron_client.errors import ClientError, RequestRejected, StreamBroken
from nemotron_client.events import Event
from nemotron_client.json_text import Json
from nemotron_client.messages import MessageLike
from nemotron_client.options import ChatOptions, GenerateOptions, RenderOptions
from nemotron_client.outgoing import Outgoing
from nemotron_client.protocol import Methods
from nemotron_client.refusals import of_silence
from nemotron_client.reply import Reply
from nemotron_client.run import Run, RunEvent
from nemotron_client.settings import ClientSettings, check_timeout_s
from nemotron_client.status import Description, Health, Model, Prompt
from nemotron_client.streams import AsyncStream, RunningCall
from nemotron_client.tool_loop import ToolErrors, ToolLoop
from nemotron_client.tools import ToolLike

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncClient(BaseClient[AsyncServers]):
    """Talks to one server, or to several, from one event loop; use with `async with`, or await `close`.

    `Client` is the same for programs with threads.
    """

    async def chat(
        self,
        messages: Sequence[MessageLike] | Json,
        *,
        tools: Sequence[ToolLike] | Json | None = None,
        thinking: bool | None = None,
        **options: Unpack[ChatOptions],
    ) -> Reply:
        """The whole answer to *messages*; parameters and errors as for `stream`."""
        return Reply.of([event async for event in self.stream(messages, tools=tools, thinking=thinking, **options)])

    def stream(
        self,
        messages: Sequence[MessageLike] | Json,
        *,
        tools: Sequence[ToolLike] | Json | None = None,
        thinking: bool | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncStream[Event]:
        """The events of the answer to *messages*, as they arrive; the last one is `Finish`.

        Messages are typed (`UserMessage`, ...) or OpenAI-shaped dicts; *tools* are functions, `Tool`s or OpenAI-shaped
        dicts; both may be `Json`. *thinking* says whether the model thinks first; None is the model's default. The
        other options are those of `ChatOptions`.

        Raises `InvalidRequest` at once for what cannot be sent, and while the stream is read `RequestRejected`,
        `ServerUnavailable`, `DeadlineExceeded` or `StreamBroken`.
        """
        return self._stream(outgoing.chat(self._settings, messages, tools, thinking, options))

    async def generate(self, prompt: str, *, thinking: bool | None = None, **options: Unpack[GenerateOptions]) -> Reply:
        """What the model writes after *prompt*, a finished one as `render` makes them; errors as for `stream`."""
        return Reply.of([event async for event in self.generate_stream(prompt, thinking=thinking, **options)])

    def generate_stream(
        self, prompt: str, *, thinking: bool | None = None, **options: Unpack[GenerateOptions]
    ) -> AsyncStream[Event]:
        """The events of what the model writes after *prompt*; *thinking* says whether the prompt begins a thought."""
        return self._stream(outgoing.generate(self._settings, prompt, thinking, options))

    async def run(
        self,
        messages: Sequence[MessageLike],
        *,
        tools: Sequence[ToolLike],
        thinking: bool | None = None,
        max_turns: int = 8,
        on_tool_error: ToolErrors = "raise",
        **options: Unpack[ChatOptions],
    ) -> Run:
        """The answer to *messages* after all the *tools* were called that the model asked for; as `run_stream`."""
        stream = self.run_stream(
            messages, tools=tools, thinking=thinking, max_turns=max_turns, on_tool_error=on_tool_error, **options
        )
        return Run.of([event async for event in stream], messages)

    def run_stream(
        self,
        messages: Sequence[MessageLike],
        *,
        tools: Sequence[ToolLike],
        thinking: bool | None = None,
        max_turns: int = 8,
        on_tool_error: ToolErrors = "raise",
        **options: Unpack[ChatOptions],
    ) -> AsyncStream[RunEvent]:
        """The events of every answer of the model, and a `ToolResult` for every function it had called.

        *tools* are functions, or `Tool`s that have one. The calls of one answer run at the same time, in threads.
        The model may give *max_turns* answers. A call that cannot be made, or fails, is raised as a `ToolError`;
        with *on_tool_error* `tell` the model gets the error as the result, and may do better.
        """
        loop = ToolLoop(messages, tools, options, max_turns=max_turns, on_tool_error=on_tool_error)

        running = RunningCall()

        async def responses() -> AsyncGenerator[Sequence[RunEvent], None]:
            calling = True
            while calling:
                request = outgoing.chat(self._settings, loop.messages, loop.tools, thinking, loop.options)
                async with contextlib.aclosing(self._responses(request, running)) as answer:
                    async for events in answer:
                        yield loop.added(events)
                calls = loop.calls()
                yield loop.added(await loop.make_async(calls))
                calling = bool(calls)

        return AsyncStream(responses(), running=running)

    async def render(
        self,
        messages: Sequence[MessageLike] | Json | None = None,
        *,
        prompt: str | None = None,
        tools: Sequence[ToolLike] | Json | None = None,
        thinking: bool | None = None,
        **options: Unpack[RenderOptions],
    ) -> Prompt:
        """What the model would get to read for *messages*: the server's prompt and its token ids.

        Or for a finished *prompt*, instead of messages. The options are those of `RenderOptions`.
        """
        request = outgoing.render(self._settings, messages, prompt, tools, thinking, options)
        return outgoing.prompt_of(await self._ask(request, lambda methods: methods.infer), self._settings.where)

    async def count_tokens(
        self,
        messages: Sequence[MessageLike] | Json | None = None,
        *,
        prompt: str | None = None,
        tools: Sequence[ToolLike] | Json | None = None,
        thinking: bool | None = None,
        **options: Unpack[RenderOptions],
    ) -> int:
        """How many tokens of the context *messages* and *tools* take, or a *prompt*; parameters as for `render`."""
        rendered = await self.render(messages, prompt=prompt, tools=tools, thinking=thinking, **options)
        return rendered.num_tokens

    async def health(self, timeout_s: float = 5.0) -> Health:
        """Whether each server runs and can answer; never raises for a server that does not."""
        check_timeout_s(timeout_s)
        return await self._servers.health(timeout_s)

    async def is_ready(self, timeout_s: float = 5.0) -> bool:
        """Whether a server says that it can answer."""
        return (await self.health(timeout_s)).ready

    async def describe(self, timeout_s: float | None = None) -> Description:
        """What a server serves, or the one of several that is asked; errors as for `stream`.

        It answers also while it has no room for requests, and `RequestRejected` is raised where it is too old to know.
        """
        description: Description
        [description] = [part async for part in self._stream(outgoing.describe(self._settings, timeout_s))]
        return description

    async def models(self, timeout_s: float | None = None) -> tuple[Model, ...]:
        """The models of this project that a server has, with their tensors; errors as for `stream`."""
        models = []
        for name in outgoing.MODELS:
            request = outgoing.metadata(self._settings, name, timeout_s)
            try:
                models.append(outgoing.model_of(await self._ask(request, lambda methods: methods.model_metadata)))
            except RequestRejected as error:
                if error.status != "NOT_FOUND":
                    raise
        return tuple(models)

    async def close(self) -> None:
        """Close the connections; running streams end with an error."""
        await self._servers.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @staticmethod
    def _reach(settings: ClientSettings) -> AsyncServers:
        return AsyncServers(settings)

    def _stream(self, request: Outgoing) -> AsyncStream[Any]:
        running = RunningCall()
        return AsyncStream(self._responses(request, running), request.request_id, running)

    async def _responses(self, request: Outgoing, running: RunningCall) -> AsyncGenerator[Sequence[Any], None]:
        attempts = request.attempts(self._servers.endpoints)
        await self._servers.ensure_watched(attempts.remaining_s())
        while True:
            try:
                with attempts.one() as attempt:
                    # Not a generator of its own: there is no `yield from` here; each response would pay for another.
                    reader = request.reader(attempt.url, attempts)
                    call = running.begin(self._begun(lambda methods: methods.stream_infer, request, attempt, attempts))
                    try:
                        while (response := await call.read()) is not grpc.aio.EOF:
                            attempt.heard = True
                            yield reader.read(response)
                    except grpc.RpcError as error:
                        raise reader.failure or self._error(error, request, attempt, started=reader.started) from error
                    except asyncio.CancelledError as error:
                        self._raise_if_ended(error, attempt, started=reader.started, running=running)
                        raise
                    finally:
                        if not call.done():
                            call.cancel()
                    reader.end()
                return
            except ClientError as error:
                pause_s = attempts.pause_s(error)
                if pause_s is None:
                    if error.unreached:
                        await asyncio.to_thread(self._explain, error)
                    raise
            await asyncio.sleep(pause_s)

    async def _ask(self, request: Outgoing, method: Callable[[Methods], Any]) -> Any:
        """The one response to *request*."""
        attempts = request.attempts(self._servers.endpoints)
        await self._servers.ensure_watched(attempts.remaining_s())
        while True:
            try:
                with attempts.one() as attempt:
                    call = self._begun(method, request, attempt, attempts)
                    try:
                        return await call
                    except grpc.RpcError as error:
                        raise self._error(error, request, attempt, started=False) from error
                    except asyncio.CancelledError as error:
                        self._raise_if_ended(error, attempt, started=False)
                        raise
            except ClientError as error:
                pause_s = attempts.pause_s(error)
                if pause_s is None:
                    if error.unreached:
                        await asyncio.to_thread(self._explain, error)
                    raise
            await asyncio.sleep(pause_s)

    def _raise_if_ended(
        self, error: asyncio.CancelledError, attempt: Attempt, *, started: bool, running: RunningCall | None = None
    ) -> None:
        """Calls that others end, *attempt* among them, look in gRPC as if the tasks that read them were cancelled."""
        if asked_to_stop(unknown=False):
            return
        if running and running.cancelled:
            raise StreamBroken(f"the stream was closed while {attempt.url} answered") from error
        if self._servers.connections.closed:
            raise StreamBroken(f"the client was closed while {attempt.url} answered") from error
        if attempt.broken_off:
            raise of_silence(attempt.url, started=started) from error

    def _begun(self, method: Callable[[Methods], Any], request: Outgoing, attempt: Attempt, attempts: Attempts) -> Any:
        """The call of *method* for this attempt, begun."""
        remaining_s = attempts.remaining_s()
        begin = method(self._servers.connections.methods(attempt.url))
        call = begin(request.limited_to(remaining_s), timeout=remaining_s, metadata=request.limits.metadata)
        return attempt.begin(call)
