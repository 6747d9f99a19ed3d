"""A conversation with a served model. Every way out of a question leaves messages that can be sent again."""

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
    """What was said so far, and what holds for what is said next: `system`, `tools` and `thinking` can be set."""

    def __init__(
        self,
        client: Client,
        *,
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool | None = None,
        tool_choice: str | None = None,
        **options: Any,
    ) -> None:
        """Nothing is said yet; *options* go with every request."""
        self.system = system
        self.tools = tools
        self.thinking = thinking
        self._client = client
        self._tool_choice = tool_choice
        self._options = options
        self._said: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """The whole conversation, OpenAI-shaped."""
        return ([{"role": "system", "content": self.system}] if self.system else []) + self._said

    def forget(self) -> None:
        """Begin anew, with the same system prompt and tools."""
        self._said = []

    def ask(self, question: str, result_of: Callable[[ToolCall], str | None]) -> None:
        """Show the model's answer to *question*; *result_of* a call is what its function returned, empty for none.

        An answer that is interrupted stays as far as it came. A question without a word of answer, or whose answer
        failed with `ClientError`, is taken back, so that it can be asked again.
        """
        turn: list[Message] = [{"role": "user", "content": question}]
        choice = self._tool_choice if self.tools else None
        going_on = True
        while going_on:
            answer, results = _Answer(), list[tuple[ToolCall, str]]()
            try:
                self._hear(answer, turn, choice)
                results = [(call, result) for call in answer.calls if (result := result_of(call))]
            except Interrupted:
                click.echo("(stopped)", err=True)
            turn += answer.messages(results)
            going_on = bool(results)
            # A call that must be made is made once, or there would never be an answer.
            choice = None
        if turn[-1]["role"] == "user":
            click.echo("(no answer: the question is taken back)", err=True)
        else:
            self._said += turn

    def _hear(self, answer: _Answer, turn: Sequence[Message], choice: str | None) -> None:
        messages = [*self.messages, *turn]
        stream = self._client.stream(
            messages, tools=self.tools, tool_choice=choice, thinking=self.thinking, **self._options
        )
        with closing(stream) as events:
            show(answer.taken(events))


class _Answer:
    """One answer, as far as it came."""

    def __init__(self) -> None:
        """Nothing came yet."""
        self.calls: list[ToolCall] = []
        self._content: list[str] = []
        self._reasoning: list[str] = []

    def taken(self, events: Iterable[Event]) -> Iterator[Event]:
        """*events*, each of them kept here first."""
        for event in events:
            if isinstance(event, ContentDelta):
                self._content.append(event.text)
            elif isinstance(event, ReasoningDelta):
                self._reasoning.append(event.text)
            # The server takes back no call whose arguments are not an object.
            elif isinstance(event, ToolCall) and isinstance(event.arguments, dict):
                self.calls.append(event)
            yield event

    def messages(self, results: Sequence[tuple[ToolCall, str]]) -> list[Message]:
        """The messages to go on with, none if there is nothing; a call without a result is left out."""
        content = "".join(self._content)
        if not results:
            return [{"role": "assistant", "content": content}] if content.strip() else []
        message: Message = {"role": "assistant", "content": content or None}
        message["tool_calls"] = [call.as_openai() for call, _ in results]
        # Models that think go on with their thoughts until the question is answered; their templates drop older ones.
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        return [message] + [
            {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result} for call, result in results
        ]
