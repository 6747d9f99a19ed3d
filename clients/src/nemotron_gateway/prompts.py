"""`POST /tokenize` and `POST /v1/chat/completions/render`: what the model gets to read."""

from __future__ import annotations

from typing import Any

import msgspec

from nemotron_client import ClientError, RenderOptions
from nemotron_gateway.answering import Answering
from nemotron_gateway.chat_request import Asked, ChatRequest, read_chat
from nemotron_gateway.client_errors import api_error
from nemotron_gateway.errors import invalid
from nemotron_gateway.exchange import Receive, Scope, Send, send_json
from nemotron_gateway.json_body import NULL, is_null

_OPTIONS = frozenset(RenderOptions.__annotations__)


class PromptRequest(ChatRequest, kw_only=True):
    """A chat completion that is not to be answered, or a finished prompt."""

    messages: msgspec.Raw = NULL
    prompt: str | None = None


class Prompts:
    """The tokens of a prompt, and with *shows_text* what they spell."""

    def __init__(self, answering: Answering, *, shows_text: bool) -> None:
        self._answering = answering
        self._shows_text = shows_text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answering = self._answering
        asked, request = read_chat(await answering.body(scope, receive), PromptRequest)
        assert isinstance(request, PromptRequest)
        if is_null(request.messages) == (request.prompt is None):
            raise invalid("give messages, or a finished prompt", "messages")
        async with answering.connected(receive):
            try:
                model = await answering.served.name(asked.model)
                served = await answering.served.served()
                prompt = await answering.client.render(prompt=request.prompt, **_conversation(asked, request))
            except ClientError as error:
                raise api_error(error, asked.fields) from error
        body: dict[str, Any] = {
            "model": model,
            "count": prompt.num_tokens,
            "max_model_len": served.description.context_tokens,
            "tokens": prompt.token_ids,
        }
        await send_json(send, 200, body | {"prompt": prompt.text} if self._shows_text else body)


def _conversation(asked: Asked, request: PromptRequest) -> dict[str, Any]:
    if request.prompt is not None:
        return {}
    options = {name: value for name, value in asked.options.items() if name in _OPTIONS}
    return {"messages": asked.messages, "tools": asked.tools, "thinking": asked.thinking, **options}
