"""The events of the answers to one request from its responses, and whether they ended as answers should."""

from __future__ import annotations

import functools
from typing import Any

from nemotron_client import wire
from nemotron_client.choice_reader import NO_TEXT, ChoiceReader
from nemotron_client.errors import ClientError, StreamBroken
from nemotron_client.events import Event
from nemotron_client.protocol import unpacked
from nemotron_client.refusals import of_message

_REASONING, _TEXT, _CHOICE = wire.REASONING_OUTPUT.name, wire.TEXT_OUTPUT.name, wire.SEQUENCE_INDEX.name


class AnswerReader:
    """Reads what one server sends to one request for *choices* answers; a further attempt takes a new one.

    *begin_s* is when the call was made, by `time.monotonic`; *retries* how many attempts went before.
    """

    def __init__(self, url: str, request_id: str, *, begin_s: float, retries: int, choices: int = 1) -> None:
        self._url = url
        self._begun = functools.partial(ChoiceReader, request_id=request_id, begin_s=begin_s, retries=retries)
        self._count = choices
        self._choices: dict[int, ChoiceReader] = {}
        self.failure: ClientError | None = None
        self.started = False

    def read(self, message: Any) -> list[Event]:
        """The events in one `ModelStreamInferResponse`, in the order they were generated; `StreamBroken` if it is none.

        An error in it is kept for `end`: the stream is read on to its end, which is near, because to cancel a stream
        that just ends crashes tritonserver before 25.06 (CVE-2025-23322).
        """
        if message.error_message:
            self.failure = self.failure or of_message(message.error_message, self._url, started=self.started)
            return []
        self.started = True
        try:
            return self._events(message.infer_response)
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise StreamBroken(f"{self._url} sent a response that this client cannot read: {error!r:.300}") from error

    def end(self) -> None:
        """Called after the last response; raises what was wrong with the answer."""
        if self.failure:
            raise self.failure
        if sum(choice.finished for choice in self._choices.values()) < self._count:
            raise StreamBroken(f"{self._url} ended the answer without a finish reason")

    def _events(self, response: Any) -> list[Event]:
        # On the path of every token: only the tensors that a response has are looked at, and by their places, because
        # to iterate over a repeated field of protobuf costs as much as all else here.
        outputs, contents = response.outputs, response.raw_output_contents
        if (count := len(outputs)) != len(contents):
            raise ValueError(f"{count} tensors with {len(contents)} contents")
        reasoning = text = NO_TEXT
        others: dict[str, bytes] | None = None
        for place in range(count):
            name, raw = outputs[place].name, contents[place]
            if name == _TEXT:
                text = raw
            elif name == _REASONING:
                reasoning = raw
            elif others is None:
                others = {name: raw}
            else:
                others[name] = raw
        number = unpacked(wire.SEQUENCE_INDEX, others[_CHOICE]) if others and _CHOICE in others else 0
        if (choice := self._choices.get(number)) is None:
            if not 0 <= number < self._count:
                raise ValueError(f"answer {number} of {self._count}")
            choice = self._choices[number] = self._begun(number)
        return choice.read(reasoning, text, others)
