"""The messages of a conversation, typed; plain OpenAI-shaped dicts do as well wherever messages are taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from nemotron_client.errors import InvalidRequest
from nemotron_client.events import ToolCall
from nemotron_client.json_text import Json


@dataclass(frozen=True)
class SystemMessage:
    """Instructions for the whole conversation."""

    content: str

    def as_openai(self) -> dict[str, Any]:
        """The message as the wire has it."""
        return {"role": "system", "content": self.content}


@dataclass(frozen=True)
class UserMessage:
    """What the user says."""

    content: str

    def as_openai(self) -> dict[str, Any]:
        """The message as the wire has it."""
        return {"role": "user", "content": self.content}


@dataclass(frozen=True)
class AssistantMessage:
    """What the model said; `reasoning` goes back to the server where it is given.

    Models that think want it between their calls and the answer; their templates drop older thoughts.
    """

    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None

    def __post_init__(self) -> None:
        """Refuse calls that are no `ToolCall`; a plain dict may be a message, but not a part of one."""
        for place, call in enumerate(self.tool_calls):
            if not isinstance(call, ToolCall):
                field = f"tool_calls[{place}]"
                raise InvalidRequest(f"{field} is {call!r:.100}; give a ToolCall", field=field)

    def as_openai(self) -> dict[str, Any]:
        """The message as the wire has it."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [call.as_openai() for call in self.tool_calls]
        if self.reasoning is not None:
            message["reasoning_content"] = self.reasoning
        return message


@dataclass(frozen=True)
class ToolMessage:
    """What a function returned, as text; `tool_call_id` is the `id` of the call it answers."""

    content: str
    tool_call_id: str
    name: str | None = None

    def as_openai(self) -> dict[str, Any]:
        """The message as the wire has it."""
        message = {"role": "tool", "tool_call_id": self.tool_call_id, "content": self.content}
        return message if self.name is None else message | {"name": self.name}


Message: TypeAlias = SystemMessage | UserMessage | AssistantMessage | ToolMessage
MessageLike: TypeAlias = Message | Mapping[str, Any]


def openai_messages(messages: Sequence[MessageLike] | Json | None) -> list[dict[str, Any]] | Json:
    """*messages* as the wire has them; `InvalidRequest` when one is neither a message nor a mapping."""
    if isinstance(messages, Json):
        return messages
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InvalidRequest(
            f"messages is {messages!r:.100}; give a list of messages, such as [UserMessage({'...'!r})]",
            field="messages",
        )
    return [_openai(message, place) for place, message in enumerate(messages)]


def _openai(message: object, place: int) -> dict[str, Any]:
    if isinstance(message, (SystemMessage, UserMessage, AssistantMessage, ToolMessage)):
        return message.as_openai()
    if isinstance(message, Mapping):
        return dict(message)
    field = f"messages[{place}]"
    raise InvalidRequest(f"{field} is {message!r:.100}; give a message or an OpenAI-shaped dict", field=field)
