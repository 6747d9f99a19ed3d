"""`POST /v1/chat/completions`."""

from __future__ import annotations

import time

from nemotron_client import ClientError
from nemotron_gateway.answering import Answering
from nemotron_gateway.chat_answer import ChatAnswer
from nemotron_gateway.chat_chunks import ChatChunks
from nemotron_gateway.chat_request import read_chat
from nemotron_gateway.client_errors import api_error
from nemotron_gateway.exchange import Receive, Scope, Send
from nemotron_gateway.visit import visit_of


class ChatCompletions:
    """Raw ASGI: nothing stands between a response of the server and the event that it becomes."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answering, visit = self._answering, visit_of(scope)
        asked, _ = read_chat(await answering.body(scope, receive))
        answering.check_fields(asked.unknown)
        async with answering.connected(receive):
            try:
                model = await answering.served.name(asked.model)
                stream = answering.client.stream(
                    asked.messages,
                    tools=asked.tools,
                    thinking=asked.thinking,
                    **asked.options,
                    **visit.options(),
                )
                completion_id, created = f"chatcmpl-{visit.request_id}", int(time.time())
                if asked.stream:
                    include_usage = bool(asked.stream_options.include_usage)
                    chunks = ChatChunks(completion_id, created, model, include_usage=include_usage)
                    await answering.stream(send, stream.responses(), chunks, asked.fields, visit)
                else:
                    answer = ChatAnswer(completion_id, created, model, logprobs=bool(asked.options.get("logprobs")))
                    await answering.whole(send, stream.responses(), answer)
            except ClientError as error:
                raise api_error(error, asked.fields) from error
