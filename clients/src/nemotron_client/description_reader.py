"""What a server serves, read from its response."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from nemotron_client import wire
from nemotron_client.protocol import output_values
from nemotron_client.response_reader import ResponseReader
from nemotron_client.status import Description


class DescriptionReader(ResponseReader[Description]):
    """Reads the one response to a request for the description."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._complete = False

    def _parts(self, response: Any) -> list[Description]:
        if self._complete:
            raise ValueError("a second description")
        served = json.loads(output_values(response)[wire.DESCRIPTION.name])
        # A newer server may say more.
        values = {field.name: served[field.name] for field in dataclasses.fields(Description)}
        description = Description(**values | {"names": tuple(values["names"])})
        self._complete = True
        return [description]

    def _lack(self) -> str:
        return "" if self._complete else "does not say what it serves"
