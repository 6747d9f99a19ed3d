"""JSON that a program holds as text, for the server to read."""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_client.errors import InvalidRequest


@dataclass(frozen=True)
class Json:
    """JSON text, or its UTF-8, that goes to the server as it is: nothing reads it before, so the server checks it.

    For programs that pass on what they were given: it costs no decoding and encoding, and numbers keep their spelling.
    """

    text: str | bytes

    def __post_init__(self) -> None:
        """Refuse what is no text."""
        if not isinstance(self.text, (str, bytes)):
            raise InvalidRequest(f"Json is made of text or bytes, and not of {self.text!r:.100}")
