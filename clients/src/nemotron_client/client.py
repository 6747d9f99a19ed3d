"""The synchronous client: one `ModelStreamInfer` RPC per request, cancelled when the caller stops reading."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from nemotron_client.connection import metadata, open_channel
from nemotron_client.errors import ClientError, StreamBroken
from nemotron_client.events import Event, Finish, Reply
from nemotron_client.protocol import chat_request, read_events, stubs
from nemotron_client.refusals import of_message, of_status

DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_TIMEOUT_S = 600.0


class Client:
    """Talks to one server. Safe to share between threads; use as a context manager or call `close`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        secret: str | None = None,
        root_ca: str | Path | None = None,
        client_cert: str | Path | None = None,
        client_key: str | Path | None = None,
    ) -> None:
        """*url* is `host:port` of the gRPC endpoint (default: `NEMOTRON_URL`, else 127.0.0.1:8001).

        *timeout_s* is the time one request may take, its whole answer included. *secret* is the server's, where it has
        one; *root_ca* turns TLS on and is who signed the server's certificate; *client_cert* and *client_key* are for a
        server that asks for them. These four are by default `NEMOTRON_SECRET`, `NEMOTRON_ROOT_CA`,
        `NEMOTRON_CLIENT_CERT` and `NEMOTRON_CLIENT_KEY`; all but the secret are PEM files.
        """
        self.url = url or os.environ.get("NEMOTRON_URL") or DEFAULT_URL
        if "://" in self.url:
            raise ClientError(f"url is {self.url!r}; give host:port without a scheme, such as {DEFAULT_URL}")
        self._timeout_s = _checked(timeout_s)
        self._metadata = metadata(secret)
        self._channel = open_channel(self.url, root_ca, client_cert, client_key)
        self._stub = stubs(self._channel)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool | None = None,
        **options: Any,
    ) -> Reply:
        """The whole answer to OpenAI-shaped *messages*; parameters and errors as for `stream`."""
        return Reply.of(self.stream(messages, tools=tools, thinking=thinking, **options))

    def stream(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        parallel_tool_calls: bool | None = None,
        thinking: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        seed: int | None = None,
        repetition_penalty: float | None = None,
        presence_penalty: float | None = None,
        frequency_penalty: float | None = None,
        min_p: float | None = None,
        min_tokens: int | None = None,
        end_id: int | None = None,
        stop: Sequence[str] | None = None,
        stop_token_ids: Sequence[int] | None = None,
        bad_words: Sequence[str] | None = None,
        guide_type: str | None = None,
        guide: str | Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Generator[Event, None, None]:
        """The events of the answer as they arrive; the last one is `Finish`.

        What is None is left to the server: sampling then follows the model's recommendation for the thinking mode.
        *tool_choice* is auto, none, required or `{"type": "function", "function": {"name": ...}}`.
        *guide_type* json, json_schema or regex says what the text behind the thinking must look like, with a *guide*.
        Leaving the loop, or closing the iterator, stops the generation on the server.

        Raises `ClientError` at once for what cannot be sent, and `RequestRejected`, `ServerUnavailable`,
        `DeadlineExceeded` or `StreamBroken` while it is read.
        """
        request = chat_request(
            {
                "messages": list(messages),
                "tools": list(tools) if tools else None,
                "tool_choice": tool_choice,
                "parallel_tool_calls": parallel_tool_calls,
                "thinking": thinking,
                "chat_template_kwargs": chat_template_kwargs,
                "max_tokens": max_tokens,
                "temperature": temperature,
                "top_p": top_p,
                "top_k": top_k,
                "seed": seed,
                "repetition_penalty": repetition_penalty,
                "presence_penalty": presence_penalty,
                "frequency_penalty": frequency_penalty,
                "min_p": min_p,
                "min_tokens": min_tokens,
                "end_id": end_id,
                "stop_words": stop,
                "stop_token_ids": stop_token_ids,
                "bad_words": bad_words,
                "guided_decoding_guide_type": guide_type,
                "guided_decoding_guide": guide,
            },
            request_id=uuid.uuid4().hex,
        )
        return self._events(request, self._timeout_s if timeout_s is None else _checked(timeout_s))

    def is_ready(self, timeout_s: float = 5.0) -> bool:
        """Whether the server says that it can answer."""
        try:
            return bool(self._stub.ServerReady(_ready_request(), timeout=timeout_s).ready)
        except grpc.RpcError:
            return False

    def close(self) -> None:
        """Close the connection; running streams end with an error."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _events(self, request: Any, timeout_s: float) -> Generator[Event, None, None]:
        # The server keeps to it too, so that nothing is generated for nobody. Microseconds, as Triton has it.
        request.parameters["timeout"].int64_param = min(int(timeout_s * 1e6), 2**63 - 1)
        try:
            call = self._stub.ModelStreamInfer(iter([request]), timeout=timeout_s, metadata=self._metadata)
        except ValueError as error:
            raise ClientError(f"this client of {self.url} is closed; make a new one") from error
        started = finished = False
        failure: ClientError | None = None
        try:
            for response in call:
                if response.error_message:
                    # Read on to the end, which is near: to cancel a stream that just ends crashes tritonserver before
                    # 25.06 (CVE-2025-23322).
                    failure = failure or of_message(response.error_message, self.url, started=started)
                    continue
                started = True
                for event in read_events(response.infer_response):
                    finished = finished or isinstance(event, Finish)
                    yield event
        except grpc.RpcError as error:
            raise of_status(error, self.url, timeout_s, started=started) from error
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise StreamBroken(f"{self.url} sent a response that is not ours: {error!r}") from error
        finally:
            if call.is_active():
                call.cancel()
        if failure:
            raise failure
        if not finished:
            raise StreamBroken(f"{self.url} ended the answer without a finish reason")


def _checked(timeout_s: float) -> float:
    if not 0 < timeout_s < math.inf:
        raise ClientError(f"timeout_s is {timeout_s}; it must be a positive number of seconds")
    return timeout_s


def _ready_request() -> Any:
    from tritonclient.grpc import service_pb2

    return service_pb2.ServerReadyRequest()
