"""The course of a conversation in which the model's calls are made for it, until it answers. No I/O but the calls."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeAlias

from nemotron_client.cancellation import asked_to_stop
from nemotron_client.errors import InvalidRequest, ToolError, ToolFailed, TooManyTurns
from nemotron_client.json_text import Json
from nemotron_client.messages import MessageLike, openai_messages
from nemotron_client.options import ChatOptions
from nemotron_client.run import RunEvent, RunParts
from nemotron_client.tools import BoundCall, Toolbox, ToolLike, ToolResult

ToolErrors: TypeAlias = Literal["raise", "tell"]
# Calls of one answer that run at the same time in threads; further ones wait.
_MAX_THREADS = 16


class ToolLoop:
    """Says what to ask next, and makes the calls of each answer."""

    def __init__(
        self,
        messages: Sequence[MessageLike],
        tools: Sequence[ToolLike],
        options: ChatOptions,
        *,
        max_turns: int,
        on_tool_error: ToolErrors,
    ) -> None:
        """*messages*, *tools* and *options* are those of the first request; `InvalidRequest` if they cannot be used."""
        if isinstance(max_turns, bool) or not isinstance(max_turns, int) or max_turns < 1:
            raise InvalidRequest(f"max_turns is {max_turns!r}; it must be a whole number from 1", field="max_turns")
        if on_tool_error not in ("raise", "tell"):
            raise InvalidRequest(f"on_tool_error is {on_tool_error!r}; it is raise or tell", field="on_tool_error")
        if (n := options.get("n")) not in (None, 1):
            raise InvalidRequest(f"n is {n!r}; a run goes on with one answer, so leave it out", field="n")
        if isinstance(messages, Json):
            raise InvalidRequest("messages is Json; a run adds to them, so give a list", field="messages")
        self.tools = tools
        self.options: ChatOptions = {**options}
        self._toolbox = Toolbox(tools)
        openai_messages(messages)  # raises for what is no message, before the first request
        self._parts = RunParts(messages)
        self._max_turns = max_turns
        self._tell = on_tool_error == "tell"

    @property
    def messages(self) -> list[MessageLike]:
        """What to ask with next."""
        return self._parts.messages

    def added(self, events: Sequence[RunEvent]) -> Sequence[RunEvent]:
        """Take the next *events*, and return them."""
        for event in events:
            self._parts.add(event)
        return events

    def calls(self) -> list[BoundCall | ToolResult]:
        """The calls of the answer that has just ended, with their functions, or with the error that the model gets.

        There are none where it is the last answer. Raises `UnknownTool`, `InvalidArguments` or `TooManyTurns`.
        """
        reply = self._parts.replies[-1]
        if reply.tool_calls and len(self._parts.replies) == self._max_turns:
            raise TooManyTurns(
                f"the model still calls {reply.tool_calls[0].name} after {self._max_turns} answers; raise max_turns",
                tool=reply.tool_calls[0].name,
            )
        # The required call has been made; required again, it would be made for ever.
        if self.options.get("tool_choice") not in (None, "auto", "none"):
            self.options["tool_choice"] = "auto"
        calls: list[BoundCall | ToolResult] = []
        for call in reply.tool_calls:
            try:
                calls.append(self._toolbox.bind(call))
            except ToolError as error:
                if not self._tell:
                    raise
                calls.append(ToolResult(call=call, content=f"error: {error}", error=error))
        return calls

    def make(self, calls: Sequence[BoundCall | ToolResult]) -> list[ToolResult]:
        """Make *calls*, several of them at the same time in threads; results in the order of the calls."""
        if not calls or (len(calls) == 1 and not _is_async(calls[0])):
            return [self._result(call) for call in calls]
        # An asynchronous function too gets a thread, and an event loop in it: there may be one in the caller's.
        with ThreadPoolExecutor(min(len(calls), _MAX_THREADS), thread_name_prefix="nemotron-tool") as threads:
            futures = [threads.submit(contextvars.copy_context().run, self._result, call) for call in calls]
            try:
                return [future.result() for future in futures]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    async def make_async(self, calls: Sequence[BoundCall | ToolResult]) -> list[ToolResult]:
        """Make *calls* at the same time, plain functions in threads; one that raises stops the others."""
        tasks = [asyncio.ensure_future(self._result_async(call)) for call in calls]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            # They may have something to tidy up.
            await asyncio.gather(*tasks, return_exceptions=True)

    def _result(self, call: BoundCall | ToolResult) -> ToolResult:
        if isinstance(call, ToolResult):
            return call
        try:
            value = asyncio.run(call.invoke_async()) if call.is_async else call.invoke()
            return ToolResult(call=call.call, content=call.text_of(value))
        except ToolError as error:
            return self._failed(call, error)
        except asyncio.CancelledError:
            return self._failed(call, _cancelled(call))

    async def _result_async(self, call: BoundCall | ToolResult) -> ToolResult:
        if isinstance(call, ToolResult):
            return call
        try:
            value = await (call.invoke_async() if call.is_async else asyncio.to_thread(call.invoke))
            return ToolResult(call=call.call, content=call.text_of(value))
        except ToolError as error:
            return self._failed(call, error)
        except asyncio.CancelledError:
            if asked_to_stop(unknown=True):
                raise
            return self._failed(call, _cancelled(call))

    def _failed(self, call: BoundCall, error: ToolError) -> ToolResult:
        if not self._tell:
            raise error
        return ToolResult(call=call.call, content=f"error: {error}", error=error)


def _is_async(call: BoundCall | ToolResult) -> bool:
    return isinstance(call, BoundCall) and call.is_async


def _cancelled(call: BoundCall) -> ToolFailed:
    return ToolFailed(f"{call.call.name} was cancelled by something of its own", tool=call.call.name)
