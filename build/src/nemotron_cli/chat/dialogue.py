"""A conversation with a served model. However a question ends, the messages that stay can be sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import click

from nemotron_cli.chat.answer_view import show
from nemotron_cli.chat.lines import Interrupted
from nemotron_client import Client, ContentDelta, Event, ReasoningDelta, ToolCall

Message = dict[str, Any]


class Dialogue:
    """The turns so far, and `system`, `tools`, `thinking` and `max_thinking_tokens` of the next.

    *options* go with every request.
    """

    def __init__(
        self,
        client: Client,
        *,
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool | None = None,
        max_thinking_tokens: int | None = None,
        tool_choice: str | None = None,
        **options: Any,
    ) -> None:
        self.system = system
        self.tools = tools
        self.thinking = thinking
        self.max_thinking_tokens = max_thinking_tokens
        self._client = client
        self._tool_choice = tool_choice
        self._options = options
        self._turns: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """The whole conversation, OpenAI-shaped."""
        return ([{"role": "system", "content": self.system}] if self.system else []) + self._turns

    def forget(self) -> None:
        """Begin anew, with the same system prompt and tools."""
        self._turns = []

    def ask(self, question: str, result_of: Callable[[ToolCall], str | None]) -> None:
        """Show the model's answer to *question*; *result_of* a call is what its function returned, empty for none.

        An answer that is interrupted stays as far as it came. A question without a word of answer, or whose answer
        failed with `ClientError`, is taken back, so that it can be asked again.
        """
        turn: list[Message] = [{"role": "user", "content": question}]
        choice = self._tool_choice if self.tools else None
        unfinished = True
        while unfinished:
            events: list[Event] = []
            results: list[tuple[ToolCall, str]] = []
            try:
                self._stream(turn, choice, events)
                # The server takes back no call whose arguments are not an object.
                calls = [event for event in events if isinstance(event, ToolCall) and isinstance(event.arguments, dict)]
                results = [(call, result) for call in calls if (result := result_of(call))]
            except Interrupted:
                click.echo("(stopped)", err=True)
            turn += _messages(events, results)
            unfinished = bool(results)
            # A call that must be made is made once, or there would never be an answer.
            choice = None
        if turn[-1]["role"] == "user":
            click.echo("(no answer: the question is taken back)", err=True)
        else:
            self._turns += turn

    def _stream(self, turn: Sequence[Message], choice: str | None, events: list[Event]) -> None:
        """Show the next answer, and keep its *events* as they come."""
        stream = self._client.stream(
            [*self.messages, *turn],
            tools=self.tools,
            tool_choice=choice,
            thinking=self.thinking,
            max_thinking_tokens=self.max_thinking_tokens,
            **self._options,
        )
        with closing(stream):
            show(_kept(stream, events))


def _kept(stream: Iterable[Event], events: list[Event]) -> Iterator[Event]:
    for event in stream:
        events.append(event)
        yield event


def _messages(events: Sequence[Event], results: Sequence[tuple[ToolCall, str]]) -> list[Message]:
    """The messages to go on with after an answer, none if it is empty; a call without a result is left out."""
    content = "".join(event.text for event in events if isinstance(event, ContentDelta))
    if not results:
        return [{"role": "assistant", "content": content}] if content.strip() else []
    message: Message = {"role": "assistant", "content": content or None}
    message["tool_calls"] = [call.as_openai() for call, _ in results]
    # Models that think go on with their thoughts until the question is answered; their templates drop older ones.
    if reasoning := "".join(event.text for event in events if isinstance(event, ReasoningDelta)):
        message["reasoning_content"] = reasoning
    return [message] + [
        {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result} for call, result in results
    ]
