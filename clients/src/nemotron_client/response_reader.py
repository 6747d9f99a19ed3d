"""What comes of the responses to one request, and whether they ended as they should."""

from __future__ import annotations

import abc
from typing import Any, Generic, TypeVar

from nemotron_client.errors import ClientError, StreamBroken
from nemotron_client.refusals import of_message

PartT = TypeVar("PartT")


class ResponseReader(abc.ABC, Generic[PartT]):
    """Reads what one server sends to one request; a further attempt takes a new one.

    `failure` is the error that the server sent, and `started` is whether a response came.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.failure: ClientError | None = None
        self.started = False

    def read(self, message: Any) -> list[PartT]:
        """What is in one `ModelStreamInferResponse`, in the order of the stream; `StreamBroken` if it is none.

        An error in it is kept for `end`: the stream is read on to its end, which is near, because to cancel a stream
        that just ends crashes tritonserver before 25.06 (CVE-2025-23322).
        """
        if message.error_message:
            self.failure = self.failure or of_message(message.error_message, self._url, started=self.started)
            return []
        self.started = True
        try:
            return self._parts(message.infer_response)
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise StreamBroken(f"{self._url} sent a response that this client cannot read: {error!r:.300}") from error

    def end(self) -> None:
        """Called after the last response; raises what was wrong with them."""
        if self.failure:
            raise self.failure
        if lack := self._lack():
            raise StreamBroken(f"{self._url} {lack}")

    @abc.abstractmethod
    def _parts(self, response: Any) -> list[PartT]:
        """What is in one `ModelInferResponse`."""

    @abc.abstractmethod
    def _lack(self) -> str:
        """What the server left out, in words that go behind its address; empty where the responses are complete."""
