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

    def _parts(self, response: Any) -> list[Description]:
        served = json.loads(output_values(response)[wire.DESCRIPTION.name])
        # A newer server may say more.
        values = {field.name: served[field.name] for field in dataclasses.fields(Description)}
        return [Description(**values | {"names": tuple(values["names"])})]

    def _lack(self) -> str:
        return "" if self.started else "does not say what it serves"
