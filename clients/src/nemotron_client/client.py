"""The client for programs with threads: one gRPC call per request, cancelled when the caller stops reading."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from nemotron_client import outgoing
from nemotron_client._base import BaseClient
from nemotron_client.attempts import Attempts
from nemotron_client.connection import closed
from nemotron_client.endpoints import Attempt
from nemotron_client.errors import ClientError, RequestRejected
from nemotron_client.events import Event
from nemotron_client.json_text import Json
from nemotron_client.messages import MessageLike
from nemotron_client.options import ChatOptions, GenerateOptions, RenderOptions
from nemotron_client.outgoing import Outgoing
from nemotron_client.protocol import Methods
from nemotron_client.refusals import of_silence
from nemotron_client.reply import Reply
from nemotron_client.run import Run, RunEvent
from nemotron_client.servers import Servers
from nemotron_client.settings import ClientSettings, check_timeout_s
from nemotron_client.status import Description, Health, Model, Prompt
from nemotron_client.streams import RunningCall, Stream
from nemotron_client.tool_loop import ToolErrors, ToolLoop
from nemotron_client.tools import ToolLike

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Client(BaseClient[Servers]):
    """Talks to one server, or to several. Safe to share between threads; use as a context manager or call `close`.

    `AsyncClient` is the same for programs with an event loop.
    """

    def chat(
        self,
        messages: Sequence[MessageLike] | Json,
        *,
        tools: Sequence[ToolLike] | Json | None = None,
        thinking: bool | None = None,
        **options: Unpack[ChatOptions],
    ) -> Reply:
        """The whole answer to *messages*; parameters and errors as for `stream`."""
        return Reply.of(self.stream(messages, tools=tools, thinking=thinking, **options))

    def stream(
        self,
        messages: Sequence[MessageLike] | Json,
        *,
        tools: Sequence[ToolLike] | Json | None = None,
        thinking: bool | None = None,
        **options: Unpack[ChatOptions],
    ) -> Stream[Event]:
        """The events of the answer to *messages*, as they arrive; the last one is `Finish`.

        Messages are typed (`UserMessage`, ...) or OpenAI-shaped dicts; *tools* are functions, `Tool`s or OpenAI-shaped
        dicts; both may be `Json`. *thinking* says whether the model thinks first; None is the model's default. The
        other options are those of `ChatOptions`.

        Raises `InvalidRequest` at once for what cannot be sent, and while the stream is read `RequestRejected`,
        `ServerUnavailable`, `DeadlineExceeded` or `StreamBroken`.
        """
        return self._stream(outgoing.chat(self._settings, messages, tools, thinking, options))

    def generate(self, prompt: str, *, thinking: bool | None = None, **options: Unpack[GenerateOptions]) -> Reply:
        """What the model writes after *prompt*, a finished one as `render` makes them; errors as for `stream`."""
        return Reply.of(self.generate_stream(prompt, thinking=thinking, **options))

    def generate_stream(
        self, prompt: str, *, thinking: bool | None = None, **options: Unpack[GenerateOptions]
    ) -> Stream[Event]:
        """The events of what the model writes after *prompt*; *thinking* says whether the prompt begins a thought."""
        return self._stream(outgoing.generate(self._settings, prompt, thinking, options))

    def run(
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
        return Run.of(stream, messages)

    def run_stream(
        self,
        messages: Sequence[MessageLike],
        *,
        tools: Sequence[ToolLike],
        thinking: bool | None = None,
        max_turns: int = 8,
        on_tool_error: ToolErrors = "raise",
        **options: Unpack[ChatOptions],
    ) -> Stream[RunEvent]:
        """The events of every answer of the model, and a `ToolResult` for every function it had called.

        *tools* are functions, or `Tool`s that have one. The calls of one answer run at the same time, in threads.
        The model may give *max_turns* answers. A call that cannot be made, or fails, is raised as a `ToolError`;
        with *on_tool_error* `tell` the model gets the error as the result, and may do better.
        """
        loop = ToolLoop(messages, tools, options, max_turns=max_turns, on_tool_error=on_tool_error)
        running = RunningCall()

        def responses() -> Generator[Sequence[RunEvent], None, None]:
            calling = True
            while calling:
                request = outgoing.chat(self._settings, loop.messages, loop.tools, thinking, loop.options)
                for events in self._responses(request, running):
                    yield loop.added(events)
                calls = loop.calls()
                yield loop.added(loop.make(calls))
                calling = bool(calls)

        return Stream(responses(), running=running)

    def render(
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
        return outgoing.prompt_of(self._ask(request, lambda methods: methods.infer), self._settings.where)

    def count_tokens(
        self,
        messages: Sequence[MessageLike] | Json | None = None,
        *,
        prompt: str | None = None,
        tools: Sequence[ToolLike] | Json | None = None,
        thinking: bool | None = None,
        **options: Unpack[RenderOptions],
    ) -> int:
        """How many tokens of the context *messages* and *tools* take, or a *prompt*; parameters as for `render`."""
        rendered = self.render(messages, prompt=prompt, tools=tools, thinking=thinking, **options)
        return rendered.num_tokens

    def health(self, timeout_s: float = 5.0) -> Health:
        """Whether each server runs and can answer; never raises for a server that does not."""
        check_timeout_s(timeout_s)
        return self._servers.health(timeout_s)

    def is_ready(self, timeout_s: float = 5.0) -> bool:
        """Whether a server says that it can answer."""
        return self.health(timeout_s).ready

    def describe(self, timeout_s: float | None = None) -> Description:
        """What a server serves, or the one of several that is asked; errors as for `stream`.

        It answers also while it has no room for requests, and `RequestRejected` is raised where it is too old to know.
        """
        description: Description
        [description] = self._stream(outgoing.describe(self._settings, timeout_s))
        return description

    def models(self, timeout_s: float | None = None) -> tuple[Model, ...]:
        """The models of this project that a server has, with their tensors; errors as for `stream`."""
        models = []
        for name in outgoing.MODELS:
            request = outgoing.metadata(self._settings, name, timeout_s)
            try:
                models.append(outgoing.model_of(self._ask(request, lambda methods: methods.model_metadata)))
            except RequestRejected as error:
                if error.status != "NOT_FOUND":
                    raise
        return tuple(models)

    def close(self) -> None:
        """Close the connections; running streams end with an error."""
        self._servers.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _reach(settings: ClientSettings) -> Servers:
        return Servers(settings)

    def _stream(self, request: Outgoing) -> Stream[Any]:
        running = RunningCall()
        return Stream(self._responses(request, running), request.request_id, running)

    def _responses(self, request: Outgoing, running: RunningCall) -> Generator[Sequence[Any], None, None]:
        attempts = request.attempts(self._servers.endpoints)
        self._servers.ensure_watched(attempts.remaining_s())
        while True:
            try:
                with attempts.one() as attempt:
                    yield from self._answer(request, attempt, attempts, running)
                return
            except ClientError as error:
                pause_s = attempts.pause_s(error)
                if pause_s is None:
                    if error.unreached:
                        self._explain(error)
                    raise
            time.sleep(pause_s)

    def _answer(
        self, request: Outgoing, attempt: Attempt, attempts: Attempts, running: RunningCall
    ) -> Generator[Sequence[Any], None, None]:
        reader = request.reader(attempt.url, attempts)
        call = running.begin(self._begun(lambda methods: methods.stream_infer, request, attempt, attempts))
        try:
            for response in call:
                attempt.heard = True
                yield reader.read(response)
        except grpc.RpcError as error:
            raise reader.failure or self._error(error, request, attempt, started=reader.started) from error
        except RuntimeError as error:
            # A Ctrl-C in the moment when gRPC's lock is not held shows as the failure to release it.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise
        finally:
            if call.is_active():
                call.cancel()
        reader.end()

    def _ask(self, request: Outgoing, method: Callable[[Methods], Any]) -> Any:
        """The one response to *request*."""
        attempts = request.attempts(self._servers.endpoints)
        self._servers.ensure_watched(attempts.remaining_s())
        while True:
            try:
                with attempts.one() as attempt:
                    call = self._begun(lambda methods: method(methods).future, request, attempt, attempts)
                    try:
                        return call.result()
                    except grpc.RpcError as error:
                        raise self._error(error, request, attempt, started=False) from error
                    except grpc.FutureCancelledError as error:
                        raise self._error(call, request, attempt, started=False) from error
                    finally:
                        call.cancel()
            except ClientError as error:
                pause_s = attempts.pause_s(error)
                if pause_s is None:
                    if error.unreached:
                        self._explain(error)
                    raise
            time.sleep(pause_s)

    def _begun(self, method: Callable[[Methods], Any], request: Outgoing, attempt: Attempt, attempts: Attempts) -> Any:
        """The call of *method* for this attempt, begun."""
        remaining_s = attempts.remaining_s()
        try:
            begin = method(self._servers.connections.methods(attempt.url))
            call = begin(request.limited_to(remaining_s), timeout=remaining_s, metadata=request.limits.metadata)
        except ValueError as error:
            # Of a channel that is closed.
            raise (of_silence(attempt.url, started=False) if attempt.broken_off else closed(attempt.url)) from error
        return attempt.begin(call)
