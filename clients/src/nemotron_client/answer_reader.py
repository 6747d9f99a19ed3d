"""The events of the answers to one request from its responses, and whether they ended as answers should."""

from __future__ import annotations

import functools
from typing import Any

from nemotron_client import wire
from nemotron_client.choice_reader import NO_TEXT, ChoiceReader
from nemotron_client.events import Event
from nemotron_client.protocol import unpacked
from nemotron_client.response_reader import ResponseReader

_REASONING, _TEXT, _CHOICE = wire.REASONING_OUTPUT.name, wire.TEXT_OUTPUT.name, wire.SEQUENCE_INDEX.name


class AnswerReader(ResponseReader[Event]):
    """Reads what one server sends to one request for *choices* answers; a further attempt takes a new one.

    *begin_s* is when the call was made, by `time.monotonic`; *retries* how many attempts went before.
    """

    def __init__(self, url: str, request_id: str, *, begin_s: float, retries: int, choices: int = 1) -> None:
        super().__init__(url)
        self._begun = functools.partial(ChoiceReader, request_id=request_id, begin_s=begin_s, retries=retries)
        self._count = choices
        self._choices: dict[int, ChoiceReader] = {}

    def _lack(self) -> str:
        finished = sum(choice.finished for choice in self._choices.values())
        return "" if finished == self._count else "ended the answer without a finish reason"

    def _parts(self, response: Any) -> list[Event]:
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
